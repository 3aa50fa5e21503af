"""The measured capacity of a target: capacity.json, read by profiles that ask for a share of it, and its card."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from app.storage import json_files
from loadtest import mixes, sampling, summary
from loadtest.guard import Target
from loadtest.plans import Plan
from loadtest.profiles import word_of
from loadtest.search import Search
from loadtest.statuses import Status

FILE_NAME = "capacity.json"
# Of a rate at which nothing was measured.
UNKNOWN = {"p50": None, "p95": None, "p99": None}


def path_for(results: Path, env: str) -> Path:
    """Where the capacity of an environment's target stands."""
    return results / f"{env}-{FILE_NAME}"


def known_rps(results: Path, env: str, url: str = "") -> float | None:
    """The measured capacity in requests per second; None where nobody has measured, or another target than ``url``."""
    path = path_for(results, env)
    if not path.exists():
        return None
    table = json.loads(path.read_text())
    if url and table.get("url", url) != url:
        return None
    # 0 is a search that found no rate that meets the SLO: no share of it can be sent.
    return float(table["capacity_rps"]) or None


def write(results: Path, env: str, table: dict[str, Any]) -> Path:
    """Leave the capacity for later runs; returns the file."""
    path = path_for(results, env)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1))
    return path


def publish(path: Path, target: Target, port: int, state_dir: Path) -> str:
    """Put the capacity where the page /capacity of this machine's service reads it; what was done, or is to be done.

    ``port``, ``state_dir``: of the settings. The service of another machine, or in a container, keeps its own.
    """
    page = f"{target.url}/capacity"
    if not sampling.is_this_machine(target.host) or target.port != port:
        return f"For {page}, copy it to the STATE_DIR of that service: scp {path} {target.host}:STATE_DIR/{FILE_NAME}"
    shown = state_dir / FILE_NAME
    if not state_dir.is_dir():
        return f"For {page}: docker cp {path} CONTAINER:{shown} (STATE_DIR is not on this machine's disk)"
    try:
        json_files.replace(shown, json.loads(path.read_bytes()), indent=1)
    except OSError as error:
        return f"{shown} could not be written ({error.strerror}). For {page}: sudo install -m 644 {path} {shown}"
    return f"Shown at {page}"


def table_of(found: Search, plan: Plan) -> dict[str, Any]:
    """What capacity.json holds: the figure, what was promised, every step, and what it was measured on."""
    limits = {word_of(share): plan.slo.limits_ms[share] for share in plan.profile.claims if share in plan.slo.limits_ms}
    return {
        "capacity_rps": round(found.capacity_rps, 2),
        "lowest_failing_rps": found.lowest_failing_rps and round(found.lowest_failing_rps, 2),
        "verdict": found.status.name,
        "reason": found.reason,
        "not_measured": found.not_measured,
        "server": _confirmed(found).get("server", {}),
        "generator": {"busy_cores": _generator_cores(_confirmed(found))},
        "env": plan.env,
        "url": plan.url,
        "promise": {"name": plan.slo.name, "limits_ms": limits, "max_failed_share": plan.slo.max_failed_share},
        "confidence": plan.slo.confidence,
        "mix": plan.mix,
        "repeat_share": plan.repeat_share,
        "steps": [
            {
                "rate": round(step.rate, 2),
                "verdict": step.verdict.status.name,
                "is_confirmation": step.is_confirmation,
                "right_rps": step.verdict.figures.get("right_rps", 0.0),
                "response_ms": step.verdict.figures.get("response_ms", UNKNOWN),
            }
            for step in found.steps
        ],
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": plan.command,
        "fingerprint": plan.fingerprint,
    }


def _confirmed(found: Search) -> dict[str, Any]:
    """The figures of the run that confirmed the capacity; empty where none did."""
    confirmed = [step for step in found.steps if step.is_confirmation and step.verdict.status == Status.PASS]
    return dict(confirmed[-1].verdict.figures) if confirmed else {}


def _generator_cores(figures: dict[str, Any]) -> float | None:
    """What sending and judging kept busy in cores, which a server on the same machine did not have; None: not told."""
    cost_us, rate = (figures.get("generator") or {}).get("cpu_us_per_request"), figures.get("offered_rps")
    return round(cost_us * rate / 1e6, 3) if cost_us and rate else None


def rows_of_card(table: dict[str, Any]) -> list[list[str]]:
    """What a capacity is worth nothing without: machine, callers, SLO, models, server, moment."""
    prints, limits = table["fingerprint"], table["promise"]["limits_ms"]
    promised = ", ".join(f"{name} within {limit:g} ms" for name, limit in limits.items())
    failed = f"at most {table['promise']['max_failed_share']:.1%} failed, {table['confidence']:.0%} sure"
    return [
        ["machine", _machine(table)],
        ["callers", mixes.describe(table["mix"])],
        ["SLO", f"{promised}, {failed}"],
        ["models", ", ".join(f"{name}: {how}" for name, how in prints["computed_by"].items()) or "unknown"],
        ["server", f"{prints['server_version']}, {prints['server'].get('engine_workers')} engine workers"],
        ["measured", table["measured_at"]],
        *_used(table),
    ]


def _machine(table: dict[str, Any]) -> str:
    prints, cores = table["fingerprint"], (table.get("server") or {}).get("cores")
    busy = (table.get("generator") or {}).get("busy_cores")
    generator = f"{prints['generator_cores']} cores, {prints['generator_cpu']}{f', {busy:.2f} busy' if busy else ''}"
    return (
        f"{cores} core{'s' * (cores > 1)}; the generator has {generator}" if cores else f"{generator} (the generator's)"
    )


def _used(table: dict[str, Any]) -> list[list[str]]:
    """What one request cost; nothing where the server did not tell."""
    server = table.get("server") or {}
    if not server.get("cpu_ms_per_request"):
        return []
    used = f"{server['cpu_ms_per_request']:.2f} ms of processor time, {server['busy_cores']:.2f} cores busy"
    return [["a request", used]]


def headline(table: dict[str, Any]) -> str:
    """The one sentence."""
    if not table["capacity_rps"]:
        disturbed = f" ({table['not_measured']})" if table.get("not_measured") else ""
        return f"No capacity found: {table['reason']}{disturbed}."
    failing = table["lowest_failing_rps"]
    if table.get("verdict") == Status.UNDECIDED.name:
        return f"Capacity: at least {rate(table['capacity_rps'])} requests a second ({table['reason']})."
    words = f"{table['not_measured']}. It may take more load" if table.get("not_measured") else "is too much"
    beyond = f"; {rate(failing)} a second {words}" if failing else ""
    return f"Capacity: {rate(table['capacity_rps'])} requests a second{beyond}."


def rate(rps: float) -> str:
    """A rate as it is worth saying, in three digits."""
    return f"{float(f'{rps:.3g}'):g}"


def card(table: dict[str, Any]) -> str:
    """The capacity and what it was measured on, for a terminal."""
    return "\n".join(["", headline(table), "", *(f"  {line}" for line in summary.table(rows_of_card(table)))])
