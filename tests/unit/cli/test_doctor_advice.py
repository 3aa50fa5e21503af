"""What the doctor advises mends what it found, and breaks nothing: the commands of its advice are run."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.auth.tokens import FILE_NAME, TokenStore
from app.cli.checks import Check, Finding, Surroundings, access, disk, plugins, services, sizes
from app.config import ROOT
from app.host import machine
from app.host.permissions import Account
from tests import fakes, servers

# Owns nothing here; commands for it are run as root, or not at all.
SERVICE = Account("64999", 64999, 64999)
COMMANDS = re.compile(r"(?:chmod|chown|chgrp|mv|rm|mkdir) [^()]*")
IS_ROOT = os.getuid() == 0


@pytest.fixture
def box() -> Iterator[Path]:
    """A folder that others may enter; pytest's own are closed to them."""
    path = servers.make_state_dir()
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def copied_models(box: Path) -> Path:
    shutil.copytree(ROOT / "models", box / "models", ignore=shutil.ignore_patterns("samples"))
    return box / "models"


def closed_folder(box: Path) -> dict[str, object]:
    (box / "closed/state").mkdir(parents=True)
    (box / "closed").chmod(0o700)
    (box / "closed/state").chmod(0o777)
    return {"state_dir": box / "closed/state"}


def foreign_file(box: Path) -> dict[str, object]:
    (box / "cache.sqlite3").touch(0o600)
    return {}


def damaged_tokens(box: Path) -> dict[str, object]:
    (box / FILE_NAME).write_bytes(b"no database" * 400)
    return {}


def cut_tokens(box: Path) -> dict[str, object]:
    (box / FILE_NAME).write_bytes(b"SQLite")
    return {}


def newer_tokens(box: Path) -> dict[str, object]:
    TokenStore(box).close()
    with sqlite3.connect(box / FILE_NAME) as opened:
        opened.execute("PRAGMA user_version = 99")
    return {}


def closed_weights(box: Path) -> dict[str, object]:
    models = copied_models(box)
    weights = next(path for path in models.glob("site-safety-detector/*/*") if path.stat().st_size > 1_000_000)
    weights.chmod(0o600)
    return {"models_dir": models, "models": ("site-safety-detector",)}


def closed_plugin(box: Path) -> dict[str, object]:
    folder = box / "plugins/claims"
    folder.mkdir(parents=True)
    (folder / "plugin.toml").write_text('name = "claims"\nversion = "1"\ncask = ">=1,<2"\n')
    (folder / "__init__.py").touch()
    (folder / "plugin.toml").chmod(0o600)
    return {"plugins_dir": box / "plugins", "plugins": ("claims",)}


def closed_authority(box: Path) -> dict[str, object]:
    path = box / "ca.pem"
    command = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    about = ("-keyout", "/dev/null", "-out", path, "-days", "99", "-subj", "/CN=authority")
    subprocess.run([*command, *about], check=True, capture_output=True)
    path.chmod(0o600)
    return {"redis_ca_file": path}


FAULTS: dict[str, tuple[Callable[[Path], dict[str, object]], Check, str]] = {
    "a closed folder on the way to the state": (closed_folder, disk.state, "may not enter"),
    "a file of the state that a command of root made": (foreign_file, disk.state, "may not write"),
    "a damaged file of tokens": (damaged_tokens, disk.state_files, "cannot be used"),
    "a file of tokens that was cut off": (cut_tokens, disk.state_files, "it is cut off"),
    "a file of tokens of a newer release": (newer_tokens, disk.state_files, "cannot be used"),
    "weights that who serves may not read": (closed_weights, disk.models, "may not read"),
    "a plugin that who serves may not read": (closed_plugin, plugins.plugins, "may not read"),
    "an authority that who serves may not read": (closed_authority, access.authorities, "may not read"),
}


def faults(check: Check, here: Surroundings) -> list[Finding]:
    return [finding for finding in check(here) if finding.verdict != "ok"]


@pytest.mark.skipif(not IS_ROOT, reason="the advice is carried out as root, for another user")
@pytest.mark.parametrize(("plant", "check", "words"), FAULTS.values(), ids=list(FAULTS))
def test_advice_that_is_carried_out_mends(
    box: Path, plant: Callable[[Path], dict[str, object]], check: Check, words: str
) -> None:
    changes = plant(box)
    settings = fakes.make_settings(changes.pop("state_dir", box), **{"models_dir": ROOT / "models", **changes})
    here = Surroundings(settings, SERVICE)
    (found,) = faults(check, here)
    assert words in found.found

    commands = [each.rstrip(" ,.;").split(", ")[0] for each in COMMANDS.findall(found.next_step)]
    assert commands, found.next_step
    for command in commands:
        subprocess.run(["bash", "-euc", command], check=True)

    assert faults(check, here) == []


def test_process_limit_that_is_too_low_is_found(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Surroundings(fakes.make_settings(box, models_dir=ROOT / "models"), SERVICE)
    monkeypatch.setattr(machine, "most_threads", lambda: 100)
    (found,) = faults(sizes.threads_allowed, here)
    monkeypatch.setattr(machine, "most_threads", lambda: 8192)

    assert "100 allowed" in found.found and "pids_limit" in found.next_step
    assert faults(sizes.threads_allowed, here) == []


def test_redis_whose_name_nobody_knows_is_found(box: Path) -> None:
    settings = fakes.make_settings(
        box, models_dir=ROOT / "models", redis_url=SecretStr("redis://nobody.invalid:6379/0")
    )

    (found,) = faults(services.redis, Surroundings(settings, SERVICE))

    assert "nobody.invalid" in found.found and "REDIS_URL" in found.next_step
