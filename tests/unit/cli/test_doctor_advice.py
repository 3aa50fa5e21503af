"""Twenty and more things that go wrong on a box, a row each: found, the advice carried out, and gone.

The advice is a command, which is run, or settings, which are set; where it is neither (a certificate to put in place),
a function does what its words say. Nothing that was well before is worse afterwards.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from app import config
from app.auth.tokens import FILE_NAME, TokenStore
from app.cli.checks import Check, Finding, Surroundings, access, disk, plugins, services, sizes
from app.config import ROOT, SecretStr
from app.host import machine
from app.host.permissions import Account
from tests import fakes, redis_servers, servers

# Owns nothing here; commands for it are run as root, or not at all.
SERVICE = Account("64999", 64999, 64999)
COMMANDS = re.compile(r"(?:chmod|chown|chgrp|mv|rm|mkdir) [^()]*")
SETTINGS = re.compile(r"\b([A-Z][A-Z_]+)=(\w+)")
IS_ROOT = os.getuid() == 0
VERDICTS = ("ok", "warn", "fail")
MODEL = "site-safety-detector"
# Looked at before and after: advice must make none of them worse.
AROUND = (disk.state, disk.state_files, disk.models, plugins.plugins, access.secrets, access.certificates)
AROUND += (access.authorities, access.api_tokens)


@dataclass
class Box:
    """A folder that others may enter, the settings of a service in it, and what must end with it."""

    path: Path
    patch: pytest.MonkeyPatch
    changes: dict[str, Any] = field(default_factory=dict)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    loaded: config.Settings | None = None

    def here(self) -> Surroundings:
        """As the doctor sees it."""
        if self.loaded is not None:
            return Surroundings(self.loaded, SERVICE)
        known = {"models_dir": ROOT / "models", **self.changes}
        return Surroundings(fakes.make_settings(known.pop("state_dir", self.path), **known), SERVICE)


Step = Callable[[Box], object]


@dataclass(frozen=True)
class Fault:
    """``found`` and ``advised``: words of the finding. ``mend``: does what the advice says in words."""

    plant: Step
    check: Check
    found: str
    advised: str
    mend: Step | None = None


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    path = servers.make_state_dir()
    path.chmod(0o777)
    # Who serves owns it: what a command of root makes there becomes theirs.
    os.chown(path, SERVICE.uid, SERVICE.gid) if IS_ROOT else None
    made = Box(path, monkeypatch)
    with made.stack:
        yield made
    shutil.rmtree(path, ignore_errors=True)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


def closed_folder(box: Box) -> None:
    (box.path / "closed/state").mkdir(parents=True)
    (box.path / "closed").chmod(0o700)
    (box.path / "closed/state").chmod(0o777)
    box.changes["state_dir"] = box.path / "closed/state"


def newer_tokens(box: Box) -> None:
    TokenStore(box.path).close()
    with sqlite3.connect(box.path / FILE_NAME) as opened:
        opened.execute("PRAGMA user_version = 99")


def weights(box: Box) -> Path:
    """Those of a model of the box's own."""
    if "models_dir" not in box.changes:
        folder = f"models/{MODEL}/1"
        shutil.copytree(ROOT / folder, box.path / folder)
        box.changes |= {"models_dir": box.path / "models", "models": (MODEL,)}
    return box.path / "models" / MODEL / "1" / "weights.safetensors"


def put_back(box: Box) -> None:
    shutil.copy(ROOT / "models" / MODEL / "1" / "weights.safetensors", weights(box))


def plugin(box: Box, text: str = 'name = "claims"\nversion = "1"\ncask = ">=1,<2"\n') -> Path:
    folder = box.path / "plugins/claims"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.toml").write_text(text)
    (folder / "__init__.py").touch()
    box.changes |= {"plugins_dir": box.path / "plugins", "plugins": ("claims",)}
    return folder / "plugin.toml"


def pair(box: Box, name: str = "cask.example", days: int = 99) -> tuple[Path, Path]:
    """A certificate and its key, which who serves may read."""
    certificate, key = box.path / f"{name}.pem", box.path / f"{name}.key"
    command = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    about = ("-keyout", key, "-out", certificate, "-days", str(days), "-subj", f"/CN={name}")
    names = ("-addext", f"subjectAltName=DNS:{name}")
    subprocess.run([*command, *about, *names], check=True, capture_output=True)
    os.chown(key, -1, SERVICE.gid)
    key.chmod(0o640)
    return certificate, key


def tls(box: Box, days: int = 99) -> Path:
    certificate, key = pair(box, days=days)
    box.changes |= {"https_port": 8443, "tls_certificate": certificate, "tls_key": key, "server_name": "cask.example"}
    return key


def closed_authority(box: Box) -> None:
    box.changes["redis_ca_file"] = pair(box)[0]
    pair(box)[0].chmod(0o600)


def open_secret(box: Box) -> None:
    path = box.path / "secret_key"
    path.write_text("q7Wm2xN9vRk4Ls8Tz1Bd")
    path.chmod(0o644)
    box.loaded = config.load({"ENV": "test", "SECRET_KEY_FILE": str(path), "STATE_DIR": str(box.path)})


def other_key(box: Box) -> None:
    tls(box)
    box.changes["tls_key"] = pair(box, "other.example")[1]


def taken_port(box: Box) -> None:
    taken = box.stack.enter_context(socket.socket())
    taken.bind(("127.0.0.1", 0))
    box.changes["port"] = taken.getsockname()[1]


def redis_that_loses(box: Box, **options: str) -> None:
    server = box.stack.enter_context(redis_servers.running(0, box.path))
    client = redis.Redis(port=server.port)
    for name, value in options.items():
        client.config_set(name.replace("_", "-"), value)
    box.changes |= {"redis_url": SecretStr(server.url), "jobs_store": "redis"}


def expired(box: Box) -> None:
    tls(box, days=1)
    now = time.time()
    box.patch.setattr(access.time, "time", lambda: now + 5 * 86400)


FAULTS = {
    "a closed folder on the way to the state": Fault(closed_folder, disk.state, "may not enter", "chmod o+x"),
    "a file of the state that a command of root made": Fault(
        lambda box: (box.path / "cache.sqlite3").touch(0o600), disk.state, "may not write", "chown 64999"
    ),
    "a damaged file of tokens": Fault(
        lambda box: (box.path / FILE_NAME).write_bytes(b"no database" * 400), disk.state_files, "cannot be used", "mv "
    ),
    "a file of tokens that was cut off": Fault(
        lambda box: (box.path / FILE_NAME).write_bytes(b"SQLite"), disk.state_files, "it is cut off", "mv "
    ),
    "a file of tokens of a newer release": Fault(newer_tokens, disk.state_files, "cannot be used", "mv "),
    "weights that who serves may not read": Fault(
        lambda box: weights(box).chmod(0o600), disk.models, "may not read", "chmod o+r"
    ),
    "weights that somebody changed": Fault(
        lambda box: weights(box).write_bytes(b"x" * 4000),
        disk.models,
        "the manifest says",
        "put the right file back",
        put_back,
    ),
    "weights that are gone": Fault(
        lambda box: weights(box).unlink(), disk.models, "is missing", "Put the weights there", put_back
    ),
    "a model that is not in the store": Fault(
        lambda box: box.changes.update(models=("nobody",)),
        disk.models,
        "'nobody'",
        MODEL,
        lambda box: box.changes.update(models=(MODEL,)),
    ),
    "a plugin that who serves may not read": Fault(
        lambda box: plugin(box).chmod(0o600), plugins.plugins, "may not read", "chmod -R o+rX"
    ),
    "a plugin with a mistake in its file": Fault(
        lambda box: plugin(box, 'nome = "claims"\n'), plugins.plugins, "Did you mean 'name'?", "make reload", plugin
    ),
    "an authority that who serves may not read": Fault(
        closed_authority, access.authorities, "may not read", "chmod a+r"
    ),
    "a secret that all may read": Fault(open_secret, access.secrets, "can be read by every user", "chmod 640"),
    "a secret that is a placeholder": Fault(
        lambda box: box.changes.update(env="prod", secret_key=SecretStr("changeme"), trusted_proxies=("10.0.0.1",)),
        access.secrets,
        "is a placeholder",
        "openssl rand -hex 32",
        lambda box: box.changes.update(secret_key=SecretStr(printed("openssl rand -hex 32"))),
    ),
    "a key that all may read": Fault(
        lambda box: tls(box).chmod(0o644), access.certificates, "can be read by every", "chmod 640"
    ),
    "a key that who serves may not read": Fault(
        lambda box: tls(box).chmod(0o600), access.certificates, "may not read", "chgrp 64999"
    ),
    "a key of another certificate": Fault(other_key, access.certificates, "is not the key of", "of one pair", tls),
    "a certificate that has ended": Fault(expired, access.certificates, "expired 4 days ago", "Renew it", tls),
    "a certificate for another name": Fault(
        lambda box: (tls(box), box.changes.update(server_name="x.example")),
        access.certificates,
        "it is not for the name x.example",
        "Set SERVER_NAME",
        lambda box: box.changes.update(server_name="cask.example"),
    ),
    "tokens that nobody has": Fault(
        lambda box: box.changes.update(authentication="required"),
        access.api_tokens,
        "nobody has a valid one",
        "flask token create NAME",
        lambda box: TokenStore(box.path).create("press"),
    ),
    "a port that another program has": Fault(
        taken_port, services.ports, "Address already in use", "tells who has it", lambda box: box.stack.close()
    ),
    "a Redis that nobody knows": Fault(
        lambda box: box.changes.update(redis_url=SecretStr("redis://nobody.invalid:6379/0")),
        services.redis,
        "nobody.invalid",
        "REDIS_URL",
        lambda box: box.changes.pop("redis_url"),
    ),
    "a Redis that throws jobs away": Fault(
        lambda box: redis_that_loses(box, maxmemory="100mb", maxmemory_policy="allkeys-lru"),
        services.redis,
        "throws tokens and jobs away",
        "CONFIG SET",
    ),
    "a Redis whose end loses jobs": Fault(
        lambda box: redis_that_loses(box, appendonly="no"),
        services.redis,
        "appendonly is off",
        "CONFIG SET appendonly yes",
    ),
    "more threads of the engine than cores": Fault(
        lambda box: box.changes.update(engine_workers=64, engine_torch_threads=64, device="cpu"),
        sizes.threads,
        "more threads than cores",
        "ENGINE_TORCH_THREADS=1",
    ),
    "more web processes than two a core": Fault(
        lambda box: box.changes.update(web_processes=64), sizes.threads, "more web processes", "WEB_PROCESSES=0"
    ),
    "too few processes allowed": Fault(
        lambda box: box.patch.setattr(machine, "most_threads", lambda: 100),
        sizes.threads_allowed,
        "100 allowed",
        "pids_limit",
        lambda box: box.patch.setattr(machine, "most_threads", lambda: 8192),
    ),
    "too few files open at once": Fault(
        lambda box: box.patch.setattr(sizes.resource, "getrlimit", lambda which: (64, 65536)),
        sizes.open_files,
        "64",
        "ulimit -n ",
        lambda box: box.patch.setattr(sizes.resource, "getrlimit", lambda which: (ulimit(box), 65536)),
    ),
}


def printed(command: str) -> str:
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout.strip()


def ulimit(box: Box) -> int:
    """What the doctor advised."""
    box.patch.setattr(sizes.resource, "getrlimit", lambda which: (64, 65536))
    advice = faults(sizes.open_files, box.here())[0].next_step
    return int(advice.split()[2])


def faults(check: Check, here: Surroundings) -> list[Finding]:
    return [finding for finding in check(here) if finding.verdict != "ok"]


def worst(box: Box) -> list[int]:
    """How bad each thing around is."""
    here = box.here()
    return [max((VERDICTS.index(each.verdict) for each in check(here)), default=0) for check in AROUND]


def carry_out(box: Box, found: Finding) -> None:
    """What an advice says, where it is commands of Redis or a shell, or settings."""
    if found.next_step.startswith("CONFIG SET "):
        name, value = found.next_step.split(",")[0].split()[2:]
        redis.Redis.from_url(box.changes["redis_url"].get_secret_value()).config_set(name, value)
    elif commands := [each.rstrip(" ,.;").split(", ")[0] for each in COMMANDS.findall(found.next_step)]:
        for command in commands:
            subprocess.run(["bash", "-euc", command], check=True)
    else:
        given = SETTINGS.findall(found.next_step)
        assert given, found.next_step
        box.changes |= {name.lower(): int(value) for name, value in given}


@pytest.mark.skipif(not IS_ROOT, reason="the advice is carried out as root, for another user")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_fault_is_found_and_its_advice_mends_it(box: Box, fault: Fault) -> None:
    fault.plant(box)
    before = worst(box)

    (found,) = faults(fault.check, box.here())
    assert fault.found in found.found
    assert fault.advised in found.next_step
    fault.mend(box) if fault.mend else carry_out(box, found)

    assert faults(fault.check, box.here()) == []
    assert all(now <= then for now, then in zip(worst(box), before, strict=True))
