"""Workers on other machines: plan, rows and their end travel as messages over Locust's own connection.

A worker that is started here shares the plan's folder. One elsewhere has a folder of its own: it says HELLO, gets the
PLAN, says READY or why it cannot take part, and sends what it writes as PARTs, its summary last.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from app.storage import json_files
from loadtest import plans, reference, replay
from loadtest.fingerprint import cpu_name
from loadtest.plans import JOIN_SECONDS, Plan
from loadtest.scenarios import FILE_NAME
from loadtest.statuses import LoadTestError, Status, UsageError

ROOT = Path(__file__).resolve().parent.parent
HELLO, PLAN, READY, PART = "cask-hello", "cask-plan", "cask-ready", "cask-part"
# A worker that is silent for so long is lost; a network that hesitates is not.
SILENT_SECONDS = 10.0
SEND_SECONDS = 0.5
CHUNK = 1 << 20
PARTS = {"rows": "rows-{}.bin", "examples": "examples-{}.jsonl", "metrics": "metrics-{}.jsonl"}
SUMMARY = "summary"
TOLD_MOST = 3


def digests() -> dict[str, str]:
    """Name → digest of all that decides what a worker sends: this package, its libraries, the sample pictures."""
    files = [path for kind in ("*.py", "*.toml") for path in (ROOT / "loadtest").glob(kind)]
    files += [path for path in (ROOT / "models").glob("*/**/samples/*") if path.is_file()]
    files += [path for path in (ROOT / "models" / "samples").glob("*") if path.is_file()]
    found = {str(path.relative_to(ROOT)): digest(path) for path in sorted(files)}
    return found | {name: version(name) for name in ("locust", "numpy")}


def digest(path: Path) -> str:
    """Of a file; of a folder, of all files in it."""
    total = hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file() and "__pycache__" not in each.parts:
            total.update(b"\0" + str(each.relative_to(path)).encode() + b"\0" + each.read_bytes())
    return total.hexdigest()[:16]


def package(plan: Plan) -> dict[str, Any]:
    """What a worker elsewhere needs: the plan's files, and digests of what it must have itself."""
    names = (plans.FILE_NAME, reference.FILE_NAME, replay.FILE_NAME)
    files = {name: (plan.folder / name).read_text() for name in names if (plan.folder / name).exists()}
    sources = {path: digest(Path(path)) for path in set(plan.sources.values())}
    return {"root": str(ROOT), "files": files, "sources": sources, "digests": digests()}


def unpack(packed: Mapping[str, Any], folder: Path, given: Sequence[Path]) -> Plan:
    """The plan of another machine, with the scenario files of this one. Raises UsageError where something differs.

    ``given``: scenario files that were named here. ``folder``: where rows go until they are sent.
    """
    _check_digests(packed["digests"])
    here = {path: _same_source(path, told, packed["root"], given) for path, told in packed["sources"].items()}
    for name in (plans.FILE_NAME, reference.FILE_NAME, replay.FILE_NAME):
        if name in packed["files"]:
            (folder / name).touch(0o600)
            (folder / name).write_text(packed["files"][name])
    plan = plans.read(folder)
    return dataclasses.replace(plan, sources={name: str(here[path]) for name, path in plan.sources.items()})


def _check_digests(told: Mapping[str, str]) -> None:
    own = digests()
    if differing := [name for name in told if own.get(name) != told[name]]:
        more = f" and {len(differing) - TOLD_MOST} more" if len(differing) > TOLD_MOST else ""
        raise UsageError(
            f"it differs from the machine that plans in {', '.join(differing[:TOLD_MOST])}{more};"
            " expected the same revision, make install on both"
        )


def _same_source(path: str, told: str, root: str, given: Sequence[Path]) -> Path:
    """This machine's copy of a scenario: a file named here, or the same place below the checkout, or the same path."""
    asked = Path(path)
    named = [each for each in given if _tail(each) == _tail(asked)]
    below = [ROOT / asked.relative_to(root)] if asked.is_relative_to(root) else []
    found = next((each for each in (*named, *below, asked) if each.exists()), None)
    if not found:
        raise UsageError(f"it has no scenario {path}; copy the file there and name it: SCENARIO={asked.name}")
    if digest(found) != told:
        raise UsageError(f"its scenario {found} differs from that of the machine that plans; copy the file from there")
    return found


def _tail(path: Path) -> tuple[str, ...]:
    # Files of plugins are all called alike.
    return path.resolve().parts[-2:] if path.name == FILE_NAME else (path.name,)


@dataclass
class Joined:
    """A worker as the master knows it."""

    index: int
    host: str
    is_ready: bool = False
    is_done: bool = False


class Workers:
    """The master's half: who joined, who is ready, who was lost; writes what they send into the plan's folder.

    ``begin``: called once, when all are ready. ``lose``: ends the run with a sentence.
    """

    def __init__(self, runner: Any, plan: Plan, begin: Callable[[], None], lose: Callable[[str], None]) -> None:
        self._runner, self._plan, self._begin, self._lose = runner, plan, begin, lose
        self._joined: dict[str, Joined] = {}
        self._packed = package(plan)
        self._has_begun = False
        for name, listener in ((HELLO, self._hello), (READY, self._ready), (PART, self._part)):
            runner.register_message(name, listener)

    def watch(self) -> None:
        """Until the run is over: too few workers, or one that has gone, end it."""
        end = time.monotonic() + JOIN_SECONDS
        while True:
            gevent.sleep(SEND_SECONDS)
            words = self.lost() if self._has_begun else self._too_few() if time.monotonic() > end else ""
            if words:
                self._lose(words)
                return

    def lost(self) -> str:
        """Who has gone before its end, in words; empty for nobody."""
        known = self._runner.clients
        gone = [
            f"worker {each.index} on {each.host}"
            for node, each in self._joined.items()
            if self._has_begun and not each.is_done and (node not in known or known[node].heartbeat < -SILENT_SECONDS)
        ]
        return f"{', '.join(gone)} has gone in mid-run; expected all {self._plan.workers} to finish" if gone else ""

    def _too_few(self) -> str:
        ready = [each.host for each in self._joined.values() if each.is_ready]
        told = f"{len(ready)} of {self._plan.workers} workers joined within {JOIN_SECONDS:g} s"
        told += f" ({', '.join(ready)})" if ready else ""
        address = f"{self._plan.join_host}:{self._plan.join_port}"
        return f"{told}; start the others: make loadtest-worker MASTER={address} ENV={self._plan.env}"

    def _hello(self, msg: Any, **_: Any) -> None:
        node, host = msg.node_id, str(msg.data["host"])[:100]
        if node not in self._joined and (self._has_begun or len(self._joined) >= self._plan.workers):
            why = "the run has begun" if self._has_begun else f"{self._plan.workers} workers have joined already"
            self._runner.send_message(PLAN, {"full": why}, node)
            return
        worker = self._joined.setdefault(node, Joined(len(self._joined), host))
        self._runner.send_message(PLAN, {"index": worker.index, **self._packed}, node)

    def _ready(self, msg: Any, **_: Any) -> None:
        if not (worker := self._joined.get(msg.node_id)):
            return
        if refused := msg.data.get("refused"):
            self._lose(f"worker {worker.index} on {worker.host} cannot take part: {str(refused).rstrip('.')}")
            return
        worker.is_ready = True
        if not self._has_begun and sum(each.is_ready for each in self._joined.values()) == self._plan.workers:
            self._has_begun = True
            self._begin()

    def _part(self, msg: Any, **_: Any) -> None:
        if not (worker := self._joined.get(msg.node_id)):
            return
        name, data = msg.data["name"], msg.data["data"]
        if name == SUMMARY:
            table = json.loads(data) | {"worker": worker.index, "host": worker.host}
            json_files.replace(self._plan.folder / f"worker-{worker.index}.json", table)
            worker.is_done = True
        elif name in PARTS:
            with (self._plan.folder / PARTS[name].format(worker.index)).open("ab") as file:
                # What was sent again after an interruption is there already.
                if file.tell() == msg.data["at"]:
                    file.write(data)


class RemoteWorker:
    """The worker's half: takes the plan, or says why not, and sends what it writes.

    ``take``: prepares this process for a plan; raises LoadTestError. ``end``: ends it with a sentence and a status.
    """

    def __init__(
        self,
        runner: Any,
        given: Sequence[Path],
        take: Callable[[Plan], None],
        end: Callable[[str, Status], None],
    ) -> None:
        self._runner, self._given, self._take, self._end = runner, given, take, end
        self._scratch = tempfile.TemporaryDirectory(prefix="cask-loadtest-worker-")
        self._folder = Path(self._scratch.name)
        self.index, self._sent = 0, dict.fromkeys(PARTS, 0)
        self._over = Event()

    def join(self) -> None:
        """Ask for the plan."""
        self._runner.register_message(PLAN, self._planned, concurrent=True)
        self._runner.send_message(HELLO, {"host": socket.gethostname()})

    def ready(self) -> None:
        """The dispatcher is there, with its plan; from now on what it writes is sent."""
        self._sending = gevent.spawn(self._keep_sending)
        self._runner.send_message(READY, {})

    def finish(self) -> None:
        """Send the rest, and then that this worker is done."""
        self._over.set()
        self._sending.join()
        summary = json.loads((self._folder / f"worker-{self.index}.json").read_text())
        summary |= {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0))}
        self._send(SUMMARY, 0, json.dumps(summary).encode())

    def _planned(self, msg: Any, **_: Any) -> None:
        if full := msg.data.get("full"):
            self._end(
                f"the run at {self._runner.master_host}:{self._runner.master_port} is full: {full}", Status.INVALID
            )
            return
        self.index = int(msg.data["index"])
        try:
            self._take(unpack(msg.data, self._folder, self._given))
        except LoadTestError as error:
            self._runner.send_message(READY, {"refused": str(error)})
            self._end(str(error), error.status)

    def _keep_sending(self) -> None:
        while not self._over.wait(SEND_SECONDS):
            self._send_new()
        self._send_new()

    def _send_new(self) -> None:
        for name, pattern in PARTS.items():
            with (self._folder / pattern.format(self.index)).open("rb") as file:
                file.seek(self._sent[name])
                while data := file.read(CHUNK):
                    self._send(name, self._sent[name], data)
                    self._sent[name] += len(data)

    def _send(self, name: str, at: int, data: bytes) -> None:
        self._runner.send_message(PART, {"name": name, "at": at, "data": data})
