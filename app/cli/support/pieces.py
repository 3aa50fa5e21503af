"""What a support bundle holds: each piece is a name and a function that gives its text. None changes anything.

Files of secrets are read only to know what must not be in the bundle; env files are told line by line, without comments
and without values that are none of our settings.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app import config
from app.cli import checks, service
from app.config import Settings
from app.host import machine
from app.telemetry import post_mortem

COMMAND_SECONDS = 60.0
SECRET_BYTES = 1 << 16
MOST_LISTED = 400
CONFIGURATION = ("*.conf", "apachectl", "*.json")
GROUP_FILES = (
    *("memory.max", "memory.current", "memory.peak", "memory.events", "pids.max", "pids.current", "cpu.max"),
    *("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.oom_control", "pids/pids.max"),
    *("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
)
MACHINE_FILES = (
    "/etc/os-release",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/self/limits",
    "/proc/self/cgroup",
)
SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|DSN|CREDENTIAL|AUTH|COOKIE", re.I)
FILE_NAMES = re.compile(r"_FILE$|^AUTHENTICATION$")
Piece = tuple[str, Callable[[], str]]


def known_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """What must not be in the bundle, with a word for it: settings, files of secrets, the environment, env files."""
    for one in config.SECRETS:
        if value := settings.text(one.field):
            yield one.name, value
    for path in _secret_files(settings):
        try:
            yield path.name, path.read_bytes()[:SECRET_BYTES].decode("utf-8", "replace")
        except OSError:
            continue
    for name, value in config.Sources().environ.items():
        if SECRET_NAME.search(name) and not FILE_NAMES.search(name) and name.lower() not in config.DECLARATIONS:
            yield name, value
    for path in _env_files():
        for line in _lines(path):
            name, _, value = line.lstrip("# \t").partition("=")
            if SECRET_NAME.search(name) and not FILE_NAMES.search(name) and not _is_open(name):
                yield name.strip()[:40], value.strip().strip("\"'")


def pieces(settings: Settings, log: Callable[[], str] | None) -> list[Piece]:
    """All of them. ``log``: where its last lines come from; else LOG_FILE."""
    run = settings.state_dir / "run" / "httpd"
    found: list[Piece] = [
        ("versions.txt", _versions),
        ("doctor.txt", lambda: _command("doctor", "--env", settings.env)),
        ("status.json", lambda: _command("status", "--json", "--env", settings.env)),
        ("settings.txt", lambda: _command("config", "show", "--env", settings.env)),
        ("settings.json", lambda: _command("config", "show", "--json", "--env", settings.env)),
        ("models.json", lambda: _command("model", "list", "--json", "--env", settings.env)),
        ("metrics.txt", lambda: service.local(settings).text("/metrics")),
        ("log.txt", log or (lambda: _log(settings))),
        ("ends.txt", lambda: "\n".join(map(str, post_mortem.ends(settings.state_dir)))),
        ("processes.txt", _processes),
        ("machine.txt", _machine),
        ("files.txt", lambda: _files(settings)),
    ]
    found += [(f"env/{path.name}", functools.partial(_env_file, path)) for path in _env_files()]
    configuration = sorted({path for pattern in CONFIGURATION for path in run.glob(pattern)})
    found += [(f"httpd/{path.name}", functools.partial(path.read_text, errors="replace")) for path in configuration]
    return found


def _versions() -> str:
    from app.web.ops.version import build

    packages = sorted(f"{each.metadata['Name']} {each.version}" for each in importlib.metadata.distributions())
    about = [
        *(f"{name}: {value}" for name, value in build().items()),
        *(f"made: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}", f"python: {sys.version}"),
        *(f"machine: {' '.join(platform.uname())}", f"container: {checks.is_container()}"),
        *(f"cores: {machine.available_cores()}", f"memory: {machine.available_bytes()}"),
        f"user: {os.getuid()}:{os.getgid()}",
    ]
    return "\n".join([*about, "", *packages])


def _command(*arguments: str) -> str:
    """What one of our commands prints, its errors and its status."""
    status, printed = checks.ask((sys.executable, "-m", "app.cli", *arguments), COMMAND_SECONDS)
    return f"{printed}\n" + (f"\n(ended with {status})\n" if status else "")


def _log(settings: Settings) -> str:
    text = checks.log_end(settings.log_file)
    if text is None:
        return "No log is kept in a file here (LOG_FILE); add the output of make serve or of journalctl.\n"
    return text


def _processes() -> str:
    """Ours with their arguments; of others the name alone."""
    rows = [f"{'PID':>8} {'PPID':>8} {'UID':>6} {'MB':>6} STATE COMMAND"]
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            name, user = (folder / "comm").read_text().strip(), folder.stat().st_uid
        except (OSError, ValueError):
            continue
        is_ours = str(config.ROOT) in words or "httpd.conf" in words
        size = machine.resident_bytes(int(folder.name)) // 10**6
        rows.append(f"{folder.name:>8} {parent:>8} {user:>6} {size:>6} {state:<5} {words[:400] if is_ours else name}")
    return "\n".join(rows)


def _machine() -> str:
    places = [*map(Path, MACHINE_FILES), *(machine.CGROUP / name for name in GROUP_FILES)]
    parts = []
    for place in places:
        try:
            parts.append(f"== {place}\n{place.read_text(errors='replace').strip()}\n")
        except OSError:
            continue
    return "\n".join(parts)


def _files(settings: Settings) -> str:
    """Names, sizes, owners and modes of what the service reads and writes; the contents of none."""
    rows = []
    for folder in (
        settings.state_dir,
        settings.models_dir,
        settings.plugins_dir,
        *_secret_folders(),
        config.ROOT / "env",
    ):
        found = os.statvfs(folder) if folder.exists() else None
        rows.append(
            f"== {folder}" + (f", {checks.megabytes(found.f_bavail * found.f_frsize)} free" if found else ": missing")
        )
        for path in sorted(folder.rglob("*"))[:MOST_LISTED]:
            try:
                about = path.lstat()
            except OSError as error:
                rows.append(f"?          {path}: {error.strerror}")
                continue
            rows.append(f"{about.st_mode:06o} {about.st_uid:>6}:{about.st_gid:<6} {about.st_size:>12} {path}")
    return "\n".join(rows)


def _env_file(path: Path) -> str:
    """Its lines by number: of our open settings as they stand, of all others the name, and no comment."""
    rows = []
    for number, line in enumerate(_lines(path), 1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        shown = value if _is_open(name) else "[value]" if equals else ""
        rows.append(
            f"{number}: {name if equals else '[no setting]'}{equals}{shown}{' (CR)' if line.endswith(chr(13)) else ''}"
        )
    return "\n".join(rows) + "\n"


def _is_open(name: str) -> bool:
    one = config.DECLARATIONS.get(name.strip().lower())
    return one is not None and not one.is_secret


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode("utf-8", "replace").split("\n")
    except OSError:
        return []


def _env_files() -> list[Path]:
    return sorted((config.ROOT / "env").glob("*.env"))


def _secret_folders() -> list[Path]:
    return [each for each in (checks.CONTAINER_SECRETS, config.SECRETS_DIRECTORY) if each.is_dir()]


def _secret_files(settings: Settings) -> Iterator[Path]:
    environ = config.Sources().environ
    named = [environ.get(f"{one.name}_FILE") for one in config.SECRETS]
    yield from (Path(name) for name in named if name)
    if settings.tls_key is not None:
        yield settings.tls_key
    for folder in _secret_folders():
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and "certificate" not in path.name)
