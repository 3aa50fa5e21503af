"""``flask doctor``: each thing that can be wrong is made wrong, and is found with what to do about it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from app.auth import tokens
from app.cli import checks, doctor
from app.cli.checks import Check, Finding, Surroundings, access, disk, installation, services, sizes
from app.config import ROOT, SecretStr
from app.host import permissions, sizing
from app.host.permissions import Account
from tests import fakes, redis_servers, servers
from tests.certificates import Authority

# Owns nothing here, whoever runs the tests.
STRANGER = Account("stranger", 64999, 64999)
DAY_SECONDS = 86400
FLASK = Path(sys.executable).with_name("flask")


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A folder that others may enter; pytest's own are closed to them."""
    path = servers.make_state_dir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def surroundings(state_dir: Path, user: Account | None = None, **changes: Any) -> Surroundings:
    changes.setdefault("models_dir", ROOT / "models")
    settings = fakes.make_settings(state_dir, **changes)
    return Surroundings(settings, user or permissions.own_account())


def look(check: Check, here: Surroundings) -> dict[str, Finding]:
    """The findings of a check by their verdict, the last of each kind."""
    return {finding.verdict: finding for finding in check(here)}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "ENV": "test", "PORT": str(servers.free_port()), **environ}
    return subprocess.run(
        [FLASK, "doctor", *arguments], cwd=ROOT, env=kept, capture_output=True, text=True, check=False
    )


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_is_told_in_lines_and_warnings_are_no_failure(state_dir: Path) -> None:
    done = run(STATE_DIR=str(state_dir))

    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].split()[:2] == ["ok", "Settings"]
    assert lines[-1].endswith("0 fail.")
    assert {"Interpreter", "mod_wsgi", "Apache", "Model", "Memory", "Clock"} <= {
        line[8:].split()[0] for line in lines if line[2:3].isalpha()
    }


def test_broken_settings_are_told_and_the_rest_is_looked_at_all_the_same(state_dir: Path) -> None:
    done = run(STATE_DIR=str(state_dir), WEB_THREADS="many")

    assert done.returncode == 1
    assert "fail  Settings" in done.stdout
    assert "WEB_THREADS is 'many' (from the environment)" in done.stdout
    assert "ok    mod_wsgi" in done.stdout


def test_settings_that_do_not_fit_together_are_told(state_dir: Path) -> None:
    done = run("--env", "prod", STATE_DIR=str(state_dir))

    assert done.returncode == 1
    assert "SECRET_KEY is not set (ENV is 'prod')" in done.stdout
    assert "fail  Secret           SECRET_KEY: not set" in done.stdout


def test_json_has_every_finding_and_whether_all_is_well(state_dir: Path) -> None:
    said = json.loads(run("--json", STATE_DIR=str(state_dir)).stdout)

    assert said["ok"] is True
    assert all(set(row) == {"subject", "verdict", "found", "next_step"} for row in said["findings"])
    assert all(bool(row["next_step"]) == (row["verdict"] != "ok") for row in said["findings"])


def test_check_that_fails_itself_is_a_warning(state_dir: Path) -> None:
    def broken_check(here: Surroundings) -> Iterator[Finding]:
        yield checks.ok("Before", "")
        raise PermissionError("not for you")

    found = list(doctor._look(broken_check, surroundings(state_dir)))

    assert [each.verdict for each in found] == ["ok", "warn"]
    assert "Broken check" in found[1].subject and "not for you" in found[1].found


def test_root_in_a_container_is_told_who_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "is_container", lambda: True)
    monkeypatch.setattr(permissions, "own_account", lambda: Account("root", 0, 0))
    monkeypatch.setattr(permissions, "owner_of_process", lambda pid: Account("cask", 10001, 10001))

    account, finding = doctor._account("")

    assert (account.name, finding.verdict) == ("cask", "warn")
    assert finding.next_step.startswith("docker exec without -u")


def test_process_is_known_by_its_owner() -> None:
    assert permissions.owner_of_process(os.getpid()) == permissions.own_account()


def test_doctor_changes_nothing(tmp_path: Path) -> None:
    run(STATE_DIR=str(tmp_path / "state"))

    assert not (tmp_path / "state").exists()


# ── installation ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_libraries_of_other_versions_are_named(state_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "serve.txt").write_text(
        "flask==0.1 \\\n    --hash=x\nnobody==1\nother==2 ; python_version < '3'\n"
    )
    here = Surroundings(surroundings(state_dir).settings, permissions.own_account(), root=tmp_path)

    found = look(installation.libraries, here)["warn"]

    assert "flask 3." in found.found and "instead of 0.1" in found.found
    assert "nobody missing instead of 1" in found.found
    assert "other" not in found.found


def test_module_that_is_missing_is_named(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_module", lambda: None)

    assert look(installation.mod_wsgi, surroundings(state_dir))["fail"].next_step == "make install"


def test_module_built_for_another_python_is_found(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        installation, "ask", lambda command: (0, "libpython3.9.so.1.0 => /opt/lib/libpython3.9.so.1.0 (0x1)")
    )

    assert "links libpython3.9.so.1.0" in look(installation.mod_wsgi, surroundings(state_dir))["fail"].found


def test_apache_without_a_module_is_found(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_modules_folder", lambda: tmp_path)

    found = look(installation.apache, surroundings(state_dir))["fail"]

    assert "mod_unique_id.so" in found.found
    # Built into the program itself.
    assert "mod_log_config.so" not in found.found


def test_missing_apache_is_found(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "SYSTEM_PATH", str(tmp_path))

    assert "neither apache2 nor httpd" in look(installation.apache, surroundings(state_dir))["fail"].found


# ── places ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_state_that_the_service_may_not_write_is_found(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: STRANGER.uid)

    assert "may not write" in look(disk.state, surroundings(state_dir, STRANGER))["fail"].found


def test_full_disk_is_found(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(state_dir)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*real[:4], 1000, *real[5:])))

    found = list(disk.disk(surroundings(state_dir)))

    assert f"free for {state_dir}" in found[0].found
    assert {each.verdict for each in found} == {"fail"}


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_memory_that_does_not_suffice_is_found(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = surroundings(state_dir, web_processes=2)
    need = sizing.BASE_BYTES + 2 * sizing.WEB_PROCESS_BYTES + sizes.OTHER_BYTES
    verdicts = {}
    for limit in (300_000_000, 512_000_000, int(need * 1.1), need * 10):
        monkeypatch.setattr(sizes.machine, "available_bytes", lambda limit=limit: limit)
        monkeypatch.setattr(sizes, "_free_bytes", lambda: need * 10)
        verdicts[limit] = next(sizes.memory(here)).verdict

    # A container of 512 MB runs with built models.
    assert list(verdicts.values()) == ["fail", "warn", "warn", "ok"]


# ── trust ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of certificate and key, for the name cask.example and 40 days."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("one", "other"):
        command = (
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "40",
            "-subj",
            "/CN=cask.example",
        )
        names = ("-addext", "subjectAltName=DNS:cask.example")
        files = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
        subprocess.run([*command, *names, *files], check=True, capture_output=True)
        (folder / f"{name}.key").chmod(0o600)
    return folder


@pytest.fixture
def with_tls(state_dir: Path, pairs: Path) -> Callable[..., Surroundings]:
    """Surroundings with TLS by the first pair."""

    def make(**changes: Any) -> Surroundings:
        known = {"https_port": 8443, "tls_certificate": pairs / "one.pem", "tls_key": pairs / "one.key"}
        return surroundings(state_dir, **{**known, "server_name": "cask.example", **changes})

    return make


def test_right_pair_is_well(with_tls: Callable[..., Surroundings]) -> None:
    found = list(access.certificates(with_tls()))

    assert [each.verdict for each in found] == ["ok", "ok"]
    assert "valid for 40 days more" in found[1].found


@pytest.mark.parametrize(
    ("days", "verdict", "words"),
    [(20, "warn", "expires in 20 days"), (50, "fail", "expired 10 days ago"), (-1, "fail", "not valid before")],
)
def test_end_of_a_certificate_is_told_in_time(
    with_tls: Callable[..., Surroundings], monkeypatch: pytest.MonkeyPatch, days: int, verdict: str, words: str
) -> None:
    now = time.time()
    monkeypatch.setattr(access.time, "time", lambda: now + days * DAY_SECONDS)

    assert words in look(access.certificates, with_tls())[verdict].found


def test_key_with_a_password_is_found(with_tls: Callable[..., Surroundings], pairs: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    command = ("openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", pairs / "one.key", "-out", locked)
    subprocess.run(command, check=True, capture_output=True)

    assert "has a password" in look(access.certificates, with_tls(tls_key=locked))["fail"].found


def test_missing_certificate_is_found(with_tls: Callable[..., Surroundings], tmp_path: Path) -> None:
    assert "No such file" in look(access.certificates, with_tls(tls_certificate=tmp_path / "none.pem"))["fail"].found


def test_key_for_all_eyes_and_certificate_for_another_name_are_found(
    with_tls: Callable[..., Surroundings], pairs: Path
) -> None:
    (pairs / "one.key").chmod(0o644)
    found = [
        each.found for each in access.certificates(with_tls(server_name="other.example")) if each.verdict == "warn"
    ]
    (pairs / "one.key").chmod(0o600)

    assert "can be read by every user" in found[0]
    assert found[1] == "it is not for the name other.example"


def test_advice_for_a_key_does_not_shut_out_who_serves(with_tls: Callable[..., Surroundings], pairs: Path) -> None:
    here = with_tls()
    other = Surroundings(here.settings, permissions.Account("cask", 10001, 10001))
    (pairs / "one.key").chmod(0o644)
    open_to_all = next(access.certificates(other))
    (pairs / "one.key").chmod(0o600)
    closed = next(access.certificates(other))

    assert (open_to_all.verdict, closed.verdict) == ("warn", "fail")
    assert "cask may not read" in closed.found
    for found in (open_to_all, closed):
        assert "chgrp 10001" in found.next_step
        assert "chmod 640" in found.next_step


def test_strangers_without_tls_are_a_warning(state_dir: Path) -> None:
    assert "no proxy is named" in look(access.certificates, surroundings(state_dir, env="prod"))["warn"].found


def test_weak_secret_is_found_and_not_shown(state_dir: Path) -> None:
    here = surroundings(state_dir, env="prod", secret_key=SecretStr("changeme"))

    found = look(access.secrets, here)["fail"]

    assert "SECRET_KEY" in found.found and "is a placeholder" in found.found
    assert "changeme" not in found.found


def test_tokens_are_looked_at_where_they_are_asked_for(state_dir: Path) -> None:
    here = surroundings(state_dir, authentication="required")
    nobody = look(access.api_tokens, here)["warn"].found
    was_made = (state_dir / tokens.FILE_NAME).exists()
    store = tokens.TokenStore(state_dir)
    store.create("press", lifetime_seconds=90 * DAY_SECONDS)
    well = look(access.api_tokens, here)["ok"].found
    store.create("gate", lifetime_seconds=3 * DAY_SECONDS)

    assert (nobody, was_made) == ("asked for, and nobody has a valid one", False)
    assert well == "1 valid"
    assert look(access.api_tokens, here)["warn"].found == "gate will expire within 30 days"


def test_authority_that_who_serves_can_use_is_well(state_dir: Path) -> None:
    path = Authority(state_dir).certificate
    here = surroundings(state_dir, STRANGER, redis_ca_file=path, ensemble_ca_file=path)
    found = list(access.authorities(here))

    # Valid for two days, which is told.
    assert [finding.verdict for finding in found] == ["warn", "warn"]
    assert [finding.found.partition(":")[0] for finding in found] == ["REDIS_CA_FILE", "ENSEMBLE_CA_FILE"]
    assert "expires in 2 days" in found[0].found
    assert set(look(access.authorities, surroundings(state_dir))) == {"ok"}


@pytest.mark.parametrize("words", ["there is no file", "holds no certificate", "stranger may not read", "has expired"])
def test_authority_that_is_of_no_use_is_found(state_dir: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    path = Authority(state_dir).certificate
    if words == "there is no file":
        path.unlink()
    elif words == "holds no certificate":
        path.write_text("no certificate")
    elif words == "stranger may not read":
        path.chmod(0o600)
    else:
        now = time.time()
        monkeypatch.setattr(access.time, "time", lambda: now + 4 * DAY_SECONDS)

    assert words in look(access.authorities, surroundings(state_dir, STRANGER, redis_ca_file=path))["fail"].found


def test_tokens_that_are_off_for_strangers_are_a_warning(state_dir: Path) -> None:
    assert "AUTHENTICATION is off" in look(access.api_tokens, surroundings(state_dir, env="prod"))["warn"].found
    assert set(look(access.api_tokens, surroundings(state_dir))) == {"ok"}


# ── neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_free_port_is_well_and_a_taken_one_is_found(state_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        # Whoever asks what answers there is refused at once.
        taken.settimeout(0)
        here = surroundings(state_dir, port=taken.getsockname()[1])
        taken.close()
        free = look(services.ports, here)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        busy = look(services.ports, surroundings(state_dir, port=other.getsockname()[1]))

    assert free["ok"].found == "free"
    assert "Address already in use" in busy["fail"].found
    assert "ss -ltnp" in busy["fail"].next_step


def test_number_that_was_left_behind_is_not_taken_for_ours(state_dir: Path) -> None:
    (state_dir / "run" / "httpd").mkdir(parents=True)
    (state_dir / "run" / "httpd" / "httpd.pid").write_text(str(os.getpid()))

    assert services.server_pid(state_dir) is None


def test_redis_that_does_not_answer_is_found_without_its_password(state_dir: Path) -> None:
    url = f"redis://:hidden@127.0.0.1:{servers.free_port()}/0"

    found = look(services.redis, surroundings(state_dir, redis_url=SecretStr(url)))["fail"]

    assert "does not answer" in found.found
    assert "hidden" not in found.found + found.next_step


def test_redis_with_a_certificate_of_nobody_we_know_is_found(state_dir: Path) -> None:
    authority = Authority(state_dir)
    with redis_servers.encrypted(authority.sign("localhost")) as url:
        known = surroundings(state_dir, redis_url=SecretStr(url), redis_ca_file=authority.certificate)
        unknown = surroundings(state_dir, redis_url=SecretStr(url))

        assert "answers in" in look(services.redis, known)["ok"].found
        found = look(services.redis, unknown)["fail"]

    assert "certificate verify failed" in found.found
    assert found.next_step.startswith("REDIS_CA_FILE names who signed")


def test_redis_that_would_lose_jobs_is_found(state_dir: Path, tmp_path: Path) -> None:
    with redis_servers.running(0, tmp_path) as server:
        here = surroundings(state_dir, redis_url=SecretStr(server.url), jobs_store="redis")
        client = redis.Redis(port=server.port)
        # The answer to the ping, and what is kept.
        assert "appendonly is on" in look(services.redis, here)["ok"].found

        client.config_set("appendonly", "no")
        assert "appendonly is off" in look(services.redis, here)["warn"].found

        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "throws tokens and jobs away" in look(services.redis, here)["fail"].found
        on_disk = surroundings(state_dir, redis_url=SecretStr(server.url))
        assert "fail" not in look(services.redis, on_disk)


def test_clock_before_our_own_files_is_found(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.time, "time", lambda: 0.0)

    assert "is before the files of this version" in look(services.clock, surroundings(state_dir))["fail"].found


def test_errors_since_the_last_start_are_told(state_dir: Path) -> None:
    (state_dir / "server.log").write_text(
        "09:00:00 ERROR   engine an old one\n"
        "10:00:00 INFO    start  ENGINE_WORKERS 1 (set)\n"
        "10:00:01 ERROR   engine model parts@1: its weights are missing\n"
        '{"time": "x", "level": "error", "message": "another"}\n'
    )

    found = look(services.last_start, surroundings(state_dir, log_file=state_dir / "server.log"))["warn"].found

    assert found.startswith(f"2 errors in {state_dir / 'server.log'}: ")
    assert "its weights are missing" in found
    assert "an old one" not in found
