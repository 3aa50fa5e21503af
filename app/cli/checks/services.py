"""What is around the service: ports, the service itself, Redis, Docker, the clock, and what the log says."""

from __future__ import annotations

import contextlib
import ctypes
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from app.auth import secret_keys
from app.cli import checks, service
from app.cli.checks import Finding, Surroundings, ask, fail, ok, warn
from app.cli.terminal import Failure
from app.config import Settings, Sources
from app.host.running import server_pid

PRIVILEGED_PORTS = 1024
CONNECT_SECONDS = 0.5
UNTRUSTED = "certificate verify failed"
# adjtimex(2): the kernel's clock is not steered by anybody.
TIME_ERROR = 5
TIMEX_BYTES = 256
PROBLEM_LINE = re.compile(r'\b(ERROR|CRITICAL)\b|"level": ?"(error|critical)"|^FAIL:|Traceback', re.M)
START_MARK = "ENGINE_WORKERS "
SHOWN_PROBLEMS = 3
PROJECT = Sources().environ.get("COMPOSE_PROJECT_NAME") or "cask"


# ── ports and the service ────────────────────────────────────────────────────────────────────────────────────────────


def ports(here: Surroundings) -> Iterator[Finding]:
    """Whether each port is free, or taken by this very service."""
    settings = here.settings
    for port in (settings.port, *([settings.https_port] if settings.tls_enabled else [])):
        subject = f"Port {port}"
        error = _bind_error(settings.listen_host, port)
        if error is None:
            yield ok(subject, "free")
        elif isinstance(error, PermissionError) and port < PRIVILEGED_PORTS:
            yield fail(subject, f"is below {PRIVILEGED_PORTS} and needs root", "PORT=8000, or start it as root")
        elif pid := server_pid(settings.state_dir):
            yield ok(subject, f"ours, process {pid}")
        elif _readiness(settings) is not None:
            yield ok(subject, "a Cask answers there, with another STATE_DIR or in a container")
        else:
            yield fail(
                subject,
                f"cannot be listened on: {error.strerror}",
                f"ss -ltnp 'sport = :{port}' tells who has it; or PORT=",
            )


def _bind_error(host: str, port: int) -> OSError | None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def _readiness(settings: Settings) -> dict[str, Any] | None:
    try:
        document = service.local(settings).ask("/readyz", patience_seconds=0).document
    except (Failure, OSError):
        return None
    return document if isinstance(document, dict) and "ready" in document else None


def running(here: Surroundings) -> Iterator[Finding]:
    """Whether the service runs, and what it misses."""
    said = _readiness(here.settings)
    if said is None:
        if pid := server_pid(here.settings.state_dir):
            yield fail("Service", f"process {pid} runs and does not answer", "Look at its log; see docs/operations.md.")
        else:
            yield ok("Service", "does not run")
    elif said["ready"]:
        yield ok("Service", f"ready; {len(said.get('processes', []))} processes")
    else:
        for missing in said.get("missing", []):
            yield fail("Service", f"not ready: {missing}", "See docs/operations.md for this symptom.")


# ── neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────────


def redis(here: Surroundings) -> Iterator[Finding]:
    """Whether Redis answers, where one is named."""
    url = here.settings.redis_address
    if not url:
        yield ok("Redis", "not named; everything is kept on this machine")
        return
    import redis as library

    client = library.Redis.from_url(url, socket_timeout=CONNECT_SECONDS, socket_connect_timeout=CONNECT_SECONDS)
    began = time.monotonic()
    try:
        client.ping()
    except (library.RedisError, OSError) as error:
        next_step = "Start it, mend REDIS_URL, or leave that empty."
        if UNTRUSTED in str(error):
            next_step = "REDIS_CA_FILE names who signed its certificate, and REDIS_URL a host that stands in that."
        yield fail("Redis", f"{here.settings.redis_place} does not answer: {error}", next_step)
    else:
        yield ok("Redis", f"{here.settings.redis_place} answers in {(time.monotonic() - began) * 1000:.0f} ms")
        are_jobs_there = here.settings.jobs == "on" and here.settings.are_jobs_shared
        if are_jobs_there or here.settings.state_store == "redis":
            yield _keeps_state(client)
        if here.settings.state_store == "redis":
            yield _signs_alike(here.settings)
    finally:
        client.close()


def _keeps_state(client: Any) -> Finding:
    """Whether Redis keeps what it was given, also when its memory or the power ends. ``client``: an open one."""
    subject = "State in Redis"
    said = {**client.info("memory"), **client.info("persistence")}
    policy = said.get("maxmemory_policy", "noeviction")
    if said.get("maxmemory") and policy.startswith("allkeys"):
        return fail(
            subject,
            f"maxmemory-policy is {policy}: it throws tokens and jobs away when its memory is full",
            "CONFIG SET maxmemory-policy noeviction, or volatile-lru where answers are kept there too",
        )
    if not said.get("aof_enabled"):
        return warn(
            subject,
            "appendonly is off: its end loses the latest tokens, revocations and jobs",
            "CONFIG SET appendonly yes",
        )
    return ok(subject, f"appendonly is on, maxmemory-policy is {policy}")


def _signs_alike(settings: Settings) -> Finding:
    """Whether a session of one instance is good at the others."""
    keys = (settings.secret_key, settings.secret_key_fallback)
    other = secret_keys.other(settings.redis_address, *(key.get_secret_value() for key in keys))
    if other:
        return fail(
            "SECRET_KEY",
            f"differs from that of {other}, at the same Redis",
            "Give all instances one key; during a rotation the other one as SECRET_KEY_FALLBACK.",
        )
    return ok("SECRET_KEY", "goes with that of the instance at this Redis that started last")


def docker(here: Surroundings) -> Iterator[Finding]:
    """Docker, where containers are used."""
    if checks.is_container():
        yield ok("Docker", "we are inside a container")
        return
    program = _container_program()
    if program is None:
        yield ok("Docker", "not installed; make serve needs none")
        return
    status, said = ask((program, "info", "--format", "{{.ServerVersion}}"))
    if status:
        reason = said.splitlines()[-1] if said else f"status {status}"
        yield warn("Docker", f"its engine does not answer: {reason}", "Needed by make up only: make docker-engine")
        return
    filters = ("--filter", f"label=com.docker.compose.project={PROJECT}")
    _, rows = ask((program, "ps", "--all", *filters, "--format", "{{.Names}} {{.Status}}"))
    yield ok("Docker", f"engine {said}; {rows.splitlines()[0] if rows else 'no container of ours'}")


def _container_program() -> str | None:
    """The client that docker/steps use too: DOCKER, or docker."""
    return shutil.which(Sources().environ.get("DOCKER") or "docker")


def clock(here: Surroundings) -> Iterator[Finding]:
    """Whether somebody keeps the clock right, and it is not before this version was made."""
    made = max((here.root / name).stat().st_mtime for name in ("flask.wsgi", "app/config/schema.py"))
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)
    if time.time() < made:
        yield fail("Clock", f"{moment} is before the files of this version were made", "Set the clock of this machine.")
    elif ctypes.CDLL(None).adjtimex(buffer) == TIME_ERROR:
        yield warn("Clock", f"{moment}; nothing keeps it right", "timedatectl set-ntp true, on the machine itself")
    else:
        yield ok("Clock", f"{moment}, kept right")


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def last_start(here: Surroundings) -> Iterator[Finding]:
    """What went wrong since the last start, where its log can be found."""
    place, text = _log(here)
    if not place:
        where = "in docker logs (make logs)" if checks.is_container() else "where make serve was started"
        yield ok("Last start", f"no log is kept here; look {where}")
        return
    since = text[max(0, text.rfind(START_MARK)) :]
    problems = [line.strip() for line in since.splitlines() if PROBLEM_LINE.search(line)]
    if problems:
        shown = " · ".join(line[:160] for line in problems[:SHOWN_PROBLEMS])
        yield warn("Last start", f"{len(problems)} errors in {place}: {shown}", "Look each up in docs/errors.md.")
    else:
        yield ok("Last start", f"no error in {place}")


def _log(here: Surroundings) -> tuple[str, str]:
    """Where the log is and its end; empty where there is none."""
    path = here.settings.log_file
    if (text := checks.log_end(path)) is not None:
        return str(path), text
    program = None if checks.is_container() else _container_program()
    if program:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            filters = ("--filter", f"label=com.docker.compose.project={PROJECT}")
            status, name = ask((program, "ps", "--all", "--quiet", *filters))
            if not status and name:
                return f"docker logs {name.split()[0]}", ask((program, "logs", "--tail", "500", name.split()[0]))[1]
    return "", ""
