"""What ``flask status`` shows a person: one screen, the head first, then a row for each question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from app.cli import checks, terminal
from app.config import Settings

WIDTH = 11
UNITS = (("d", 86400), ("h", 3600), ("min", 60))
SHOWN_CODES, SHOWN_ENDS = 5, 3
UNASKED = ("crash", "killed", "memory", "hang", "timeout")
# From here on somebody should act.
HIGH_SHARE, SOON_DAYS, LITTLE_ROOM = 0.8, 30, 0.05

Row = tuple[str, str, str]


def show(settings: Settings, said: dict[str, Any]) -> None:
    """Print it. ``said``: what /readyz and /status answered."""
    status = said["status"]
    click.echo(f"  {click.style('Cask', bold=True)} {_head(settings, status)}\n")
    for name, words, verdict in (*_ready(said["readyz"]), *_rows(status, said.get("differing_files", []))):
        styled = click.style(f"{name:<{WIDTH}}", fg=terminal.COLOURS.get(verdict), bold=verdict in ("warn", "fail"))
        terminal.print_hanging(f"  {styled}", words, WIDTH + 2)


def _head(settings: Settings, status: dict[str, Any]) -> str:
    port = settings.https_port if settings.tls_enabled else settings.port
    return (
        f"{status['version']} ({status['revision'][:12]}), {status['environment']}, port {port},"
        f" up {duration(status['uptime_seconds'])}, {status['cores']} cores"
    )


def _ready(readyz: dict[str, Any]) -> Iterator[Row]:
    if readyz.get("ready"):
        yield "Ready", "yes", "ok"
    for at, missing in enumerate(readyz.get("missing", [])):
        yield "Ready" if at == 0 else "", f"no: {missing}" if at == 0 else missing, "fail"


def _rows(status: dict[str, Any], differing: list[str]) -> Iterator[Row]:
    yield from _models(status["engine"])
    yield from _load(status["load"], status["capacity"])
    yield from _refused(status["refused"])
    yield from _processes(status)
    yield from _ends(status["ends"])
    yield from _jobs(status["jobs"])
    yield from _room(status)
    yield from _plugins(status["plugins"])
    yield from _settings(status["settings"], differing)


def _models(engine: dict[str, Any]) -> Iterator[Row]:
    if engine.get("state") != "up":
        yield "Models", f"the engine is away: {engine.get('reason', '')}", "fail"
    for at, row in enumerate(engine.get("models", [])):
        about = filter(None, (_role(engine, row), row["state"], row.get("computed_by"), row.get("error")))
        verdict = "ok" if row["state"] == "ready" else "warn" if row["state"] == "loading" else "fail"
        yield "Models" if at == 0 else "", f"{row['name']}@{row['version']}  {', '.join(about)}", verdict


def _role(engine: dict[str, Any], row: dict[str, Any]) -> str:
    """active, previous, canary 10%, shadow; empty for one that only loads."""
    roles = engine.get("roles", {}).get(row["name"], {})
    found = next((name for name, version in roles.items() if version == row["version"]), "")
    return f"{found} {roles['canary_share']:g}%" if found == "canary" else found


def _load(load: dict[str, Any], capacity: dict[str, Any]) -> Iterator[Row]:
    rate, times = load["requests_per_second"], (load["p50_seconds"], load["p99_seconds"])
    words = f"{rate:g} requests/s in the last {duration(load['seconds'])}, {load['in_flight']} in flight"
    if times[0] is not None:
        words += "; p50 {:.0f} ms, p99 {:.0f} ms".format(*(1000 * each for each in times))
    yield "Load", words, ""
    bad = [f"{load[f'{kind}_per_second']:g} {kind}/s" for kind in ("shed", "failed") if load[f"{kind}_per_second"]]
    if bad:
        yield "", ", ".join(bad), "warn"
    if capacity.get("requests_per_second"):
        share = rate / capacity["requests_per_second"]
        measured = f"{capacity['requests_per_second']:g} requests/s, measured {capacity['measured_at'][:10]}"
        yield "Capacity", f"{share:.0%} of {measured}", "warn" if share > HIGH_SHARE else ""
    else:
        yield "Capacity", "not measured (make loadtest-search)", ""


def _refused(refused: dict[str, int]) -> Iterator[Row]:
    shown = [f"{code} {count}" for code, count in list(refused.items())[:SHOWN_CODES]]
    more = len(refused) - len(shown)
    yield "Errors", (", ".join(shown) or "none") + (f" and {more} more codes" if more > 0 else "") + ", since start", ""


def _processes(status: dict[str, Any]) -> Iterator[Row]:
    sizes: dict[str, list[int]] = {"engine": [status["engine"].get("resident_bytes", 0)]}
    for row in status["processes"]:
        sizes.setdefault(row["role"], []).append(row["resident_bytes"])
    parts = [
        f"{role}{f' ×{len(found)}' if len(found) > 1 else ''} {checks.megabytes(sum(found))}"
        for role, found in sizes.items()
        if any(found)
    ]
    used, limit = status["memory"]["used_bytes"], status["memory"]["limit_bytes"]
    yield "Processes", ", ".join(parts), ""
    share = used / limit
    words = f"{checks.megabytes(used)} of {checks.megabytes(limit)}, {share:.0%}"
    yield "Memory", words, "warn" if share > HIGH_SHARE else ""


def _ends(ends: list[dict[str, Any]]) -> Iterator[Row]:
    unasked = [row for row in ends if row["cause"] in UNASKED]
    for at, row in enumerate(reversed(unasked[-SHOWN_ENDS:])):
        words = f"{row['time']} {row['role']}: {row['cause']}"
        yield "Ended" if at == 0 else "", words, "warn"


def _jobs(jobs: dict[str, Any]) -> Iterator[Row]:
    if jobs["state"] == "off":
        return
    words = f"{jobs.get('queued', 0)} waiting, {jobs.get('running', 0)} running"
    if jobs["state"] != "up":
        words += f"; their worker is {jobs['state']}"
    yield "Jobs", words + (f"; {jobs['error']}" if "error" in jobs else ""), "" if jobs["state"] == "up" else "warn"


def _room(status: dict[str, Any]) -> Iterator[Row]:
    disk, days = status["disk"], status["certificate"].get("days_left")
    if disk:
        words = f"{checks.megabytes(disk['free_bytes'])} of {checks.megabytes(disk['total_bytes'])} free"
        yield "Disk", words, "warn" if disk["free_bytes"] < LITTLE_ROOM * disk["total_bytes"] else ""
    if days is not None:
        words = f"{days} days left" if days >= 0 else f"expired {-days} days ago"
        is_refused = status["certificate"].get("is_refused")
        words += "; the pair in the files cannot serve (make doctor)" if is_refused else ""
        yield "TLS", words, "fail" if days < 0 else "warn" if days < SOON_DAYS or is_refused else ""


def _plugins(plugins: list[dict[str, Any]]) -> Iterator[Row]:
    for at, row in enumerate(plugins):
        words = f"{row['name']}  {row['state']}" + (f": {row['reason']}" if row.get("reason") else "")
        yield "Plugins" if at == 0 else "", words, "" if row["state"] == "serving" else "warn"


def _settings(found: dict[str, Any], differing: list[str]) -> Iterator[Row]:
    rows = []
    if found["error"]:
        rows.append((f"the files cannot be used: {found['error']}", "fail"))
    if found["changed"]:
        names = ", ".join(found["changed"])
        rows.append((f"changed in the files: {names}; make reload (ports, sizes, engine: a restart)", "warn"))
    if found["restart"]:
        rows.append((f"engine and Apache still have the start's: {', '.join(found['restart'])}; a restart", "warn"))
    if differing:
        rows.append((f"not in this release: {', '.join(differing)}; make up", "warn"))
    for at, (words, verdict) in enumerate(rows or [("as in the files", "")]):
        yield "Settings" if at == 0 else "", words, verdict


def duration(seconds: float) -> str:
    """Two units at most: 3 d 4 h."""
    parts: list[str] = []
    rest = int(seconds)
    for unit, size in UNITS:
        if rest >= size and len(parts) < 2:
            parts.append(f"{rest // size} {unit}")
            rest %= size
    return " ".join(parts) or f"{int(seconds)} s"
