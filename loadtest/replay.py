"""Arrivals of an access log instead of a profile's: at the recorded times, with the recorded methods and addresses.

What has a body comes from the scenario that asks the same address; a log holds none.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.storage import json_files
from loadtest import access_logs
from loadtest.access_logs import Entry
from loadtest.scenario import Scenario
from loadtest.scenarios import Caller
from loadtest.schedule import Stage
from loadtest.statuses import UsageError
from loadtest.turns import Turn

FILE_NAME = "replay.json"
# Of addresses that no scenario asks, only these are asked again: others change something, or need a body.
SAFE = ("GET", "HEAD", "OPTIONS")
REPLAYED = "replayed"
LEFT_OUT_TOLD = 3
# A log does not say in which form pictures came.
BODIES = ("raw", "job")


@dataclass(frozen=True)
class Replay:
    """What is to be asked when. ``moments``: seconds from the beginning; ``names``: of scenarios, by moment."""

    moments: list[float]
    names: list[str]
    requests: list[tuple[str, str, int]]
    told: str

    @property
    def mix(self) -> dict[str, float]:
        """Scenario → how often."""
        return {name: float(count) for name, count in Counter(self.names).most_common()}

    @property
    def stage(self) -> Stage:
        """Its length, at its mean rate."""
        seconds = max(1.0, self.moments[-1] + 1 / len(self.moments))
        return Stage(seconds, len(self.moments) / seconds, len(self.moments) / seconds)

    @property
    def highest_rate(self) -> float:
        """The most that start within one second."""
        moments = np.array(self.moments)
        return float(np.max(np.searchsorted(moments, moments + 1.0) - np.arange(moments.size)))

    def write(self, folder: Path) -> None:
        """Leave it where the workers find it."""
        table = {"moments": self.moments, "names": self.names, "requests": self.requests, "told": self.told}
        json_files.replace(folder / FILE_NAME, table)


def read(folder: Path) -> Replay | None:
    """The replay of a run; None for a run that is none."""
    path = folder / FILE_NAME
    return Replay(**json.loads(path.read_text())) if path.exists() else None


def log_of(files: str, speed: float, seconds: float | None, prefix: str) -> tuple[access_logs.Log, str]:
    """The log in these files (words), faster by ``speed``, at most ``seconds`` of it; and what was read, in words."""
    if not 0 < speed < float("inf"):
        raise UsageError(f"SPEED is {speed:g}; expected a number above 0, such as 2 for twice as fast.")
    log = access_logs.read(Path(word) for word in files.split())
    began = log.entries[0].at
    log.entries = [
        entry._replace(at=(entry.at - began) / speed, path=entry.path.removeprefix(prefix) or "/")
        for entry in log.entries
        if seconds is None or (entry.at - began) / speed < seconds
    ]
    told = f"{len(log.entries)} requests of {files} in {log.entries[-1].at:.0f} s, at {speed:g} × their speed"
    if log.broken:
        told += f"; {log.broken} lines are no request, such as {log.first_broken}"
    return log, told


def words_for(entries: Sequence[Entry]) -> str:
    """Those of our scenarios that may ask what the log has: its tasks, raw and as jobs, where they are there."""
    paths = {entry.path for entry in entries if entry.method == "POST"}
    tasks = {path.partition("?")[0].removeprefix("/v1/") for path in paths if path.startswith("/v1/")}
    tasks |= {path.partition("task=")[2].partition("&")[0] for path in paths}
    named = (task for task in sorted(tasks - {"jobs"}) if task.isalnum())
    return " ".join(f"{task}_{way}?" for task in named for way in BODIES)


def plan(entries: Sequence[Entry], told: str, caller: Caller, weights: Sequence[float], seed: int) -> Replay:
    """Each request with its scenario. Raises UsageError where nothing is left to send."""
    found = _addresses(caller)
    chance, left_out = random.Random(seed), Counter[str]()  # noqa: S311 - chance, not a secret
    kept: list[tuple[Entry, str]] = []
    for entry in entries:
        bare = entry.path.partition("?")[0]
        fitting = found.get((entry.method, entry.path)) or found.get((entry.method, bare))
        if fitting:
            (index,) = chance.choices(fitting, [weights[each] for each in fitting])
            kept.append((entry, caller.scenarios[index].name))
        elif entry.method in SAFE:
            kept.append((entry, REPLAYED))
        else:
            left_out[f"{entry.method} {bare}"] += 1
    if left_out:
        named = ", ".join(f"{count} × {address}" for address, count in left_out.most_common(LEFT_OUT_TOLD))
        told += f"; left out, for no scenario asks it: {named}{' …' if len(left_out) > LEFT_OUT_TOLD else ''}"
    if not kept:
        raise UsageError(f"REPLAY has nothing to send: {told}. SCENARIO=file.py gives bodies for its addresses.")
    requests = [(entry.method, entry.path, entry.status) for entry, _ in kept]
    return Replay([entry.at for entry, _ in kept], [name for _, name in kept], requests, told)


def _addresses(caller: Caller) -> dict[tuple[str, str], list[int]]:
    """Method and address, with and without its query → the scenarios that begin there."""
    found: dict[tuple[str, str], list[int]] = {}
    for index in range(len(caller.scenarios)):
        first = caller.turn(index).first
        for path in {first.path, first.path.partition("?")[0]} if first else ():
            found.setdefault((first.method, path), []).append(index)  # type: ignore[union-attr]
    return found


class Replayer:
    """Makes the turns of a worker's share, in the order of the log."""

    def __init__(self, caller: Caller, replay: Replay, worker: int, workers: int) -> None:
        self._caller = caller
        by_name = {each.name: index for index, each in enumerate(caller.scenarios)}
        indices = [by_name[name] for name in replay.names]
        # Some more are made ahead than are sent.
        self._next = itertools.cycle(zip(indices[worker::workers], replay.requests[worker::workers], strict=True))

    def next(self) -> Turn:
        """The turn of the next arrival."""
        index, asked = next(self._next)
        turn = self._caller.turn(index, asked)
        # Options in an address of ours would change the answer, which is compared.
        if turn.first and turn.scenario.source:
            turn.first = turn.first._replace(path=asked[1])
        return turn


def scenario() -> Scenario:
    """An address of the log without a scenario, as it was asked; right as it was answered, or with success."""
    return Scenario(REPLAYED, _again)


def _again(turn: Turn) -> Mapping[str, Any]:
    method, path, status = turn.expect or ("GET", "/", 0)
    is_kept = 300 <= status < 500 and status != 429
    return {"method": method, "path": path, "status": [*range(200, 300), *([status] if is_kept else [])]}
