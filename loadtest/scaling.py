"""How much would another number of cores bear? A queue with as many servers as there are cores. No clock, no files.

What a request costs in processor time is measured where the capacity was; the rest is theory: requests come by chance
(Poisson), each core serves one at a time, and the wait that the promise allows decides how full the cores may be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.scenarios import SCENARIOS

# Of a page with its assets, in images: no model, but files and a template.
PAGE_WORK = 0.25
# As REQUEST_MAX_WAIT_SECONDS is by default: who would wait longer is refused, and refused is failed.
MAX_WAIT_SECONDS = 0.4
# Below this share something else is the limit: a setting, a lock, the network.
BUSY_LEAST = 0.6
SHOWN_CORES = (1, 2, 4, 8, 16)
BISECTIONS = 60


@dataclass(frozen=True)
class Work:
    """What requests cost. ``cpu_seconds``: of one, on average; ``variability``: squared deviation over mean of it."""

    cpu_seconds: float
    variability: float = 1.0


@dataclass(frozen=True)
class Wait:
    """At most ``share`` of the requests may wait longer than ``seconds``."""

    seconds: float
    share: float


def capacity_rps(cores: float, work: Work, waits: tuple[Wait, ...]) -> float:
    """The highest rate at which every wait is kept, in requests per second. ``cores`` may have a fraction."""
    low, high = 0.0, cores / work.cpu_seconds
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if all(late_share(middle, cores, work, each.seconds) <= each.share for each in waits):
            low = middle
        else:
            high = middle
    return low


def late_share(rps: float, cores: float, work: Work, seconds: float) -> float:
    """The share that waits longer than so many seconds (M/G/c: Erlang's C, and its tail made longer by variability)."""
    full = cores / work.cpu_seconds
    if rps >= full:
        return 1.0
    return waiting_share(rps * work.cpu_seconds, cores) * math.exp(-2 * (full - rps) * seconds / (1 + work.variability))


def waiting_share(load: float, cores: float) -> float:
    """Erlang's C: the share that finds all cores busy; ``load`` in cores. Parts of a core count in part."""
    below = max(1, math.floor(cores))
    shares = [_erlang_c(min(load * count / cores, count * (1 - 1e-12)), count) for count in (below, below + 1)]
    part = min(1.0, max(0.0, cores - below))
    return shares[0] * (1 - part) + shares[1] * part


def _erlang_c(load: float, count: int) -> float:
    # By Erlang's B, whose recursion neither overflows nor cancels.
    blocked = 1.0
    for number in range(1, count + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / count * (1 - blocked))


def variability_of(mix: Mapping[str, float]) -> float:
    """How unlike the requests of a mix are in cost, counted in images: 0 where all are alike."""
    total = sum(mix.values())
    works = {name: SCENARIOS[name].count or PAGE_WORK for name in mix}
    mean = sum(works[name] * weight for name, weight in mix.items()) / total
    square = sum(works[name] ** 2 * weight for name, weight in mix.items()) / total
    return square / mean**2 - 1


def waits_of(limits_ms: Mapping[float, float], max_failed_share: float, service_ms: float) -> tuple[Wait, ...]:
    """What a promise leaves for waiting: limits less the time of service, and few enough refused."""
    waits = [Wait(max(0.0, limit - service_ms) / 1000, 1 - share) for share, limit in limits_ms.items()]
    return (*waits, Wait(MAX_WAIT_SECONDS, max(max_failed_share, 1e-6)))


def reason_against(table: Mapping[str, Any]) -> str:
    """Why other numbers of cores cannot be computed from a capacity table; empty where they can."""
    server = table.get("server") or {}
    if not table["capacity_rps"] or not server.get("cpu_ms_per_request") or not server.get("cores"):
        return "the server did not tell what a request cost"
    if server["busy_cores"] < BUSY_LEAST * server["cores"]:
        return f"cores are not the limit: busy were {server['busy_cores']:.2f} of {server['cores']}"
    return ""


def of_card(table: Mapping[str, Any], counts: Sequence[float] = SHOWN_CORES) -> dict[float, float]:
    """Cores → predicted requests per second, from a capacity table; empty where :func:`reason_against` has one."""
    if reason_against(table):
        return {}
    cost = float(table["server"]["cpu_ms_per_request"])
    work = Work(cost / 1000, variability_of(table["mix"]))
    limits = {
        float(f"0.{name.removeprefix('p').replace('.', '')}"): ms for name, ms in table["promise"]["limits_ms"].items()
    }
    waits = waits_of(limits, table["promise"]["max_failed_share"], cost)
    return {cores: capacity_rps(cores, work, waits) for cores in counts}
