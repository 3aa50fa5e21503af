"""One attack beside honest callers: begin, attack, wait until all is well, and say in figures what it cost them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.attacks.honest import Row
from tests.attacks.watching import MemoryWatch
from tests.servers import ROOT, Server, wait_until

# Where the table is gathered from; each run of the tests begins a new one.
FIGURES = ROOT / "build" / "attacks.jsonl"
# Before the attack: so many right answers must have come, else there is nothing to compare with.
FIRST_ANSWERS = 12
FIRST_SECONDS = 60.0
# After it: so many right answers in a row, from each kind of request, and the service counts as recovered.
RIGHT_AGAIN = 8
RECOVERY_SECONDS = 60.0
# Of nearly nothing no share can be told.
LEAST_REQUESTS = 20


@dataclass(frozen=True)
class Figures:
    """What honest callers and the machine saw of one attack.

    ``answered``: share of the requests begun during the attack that were answered rightly within their deadline, at
    the first try. ``live`` and ``ready``: the same for /livez and /readyz. ``worst_seconds``: the slowest right answer.
    ``recovery_seconds``: from the end of the attack to the last request that failed, 0 when none did.
    """

    attack: str
    requests: int
    answered: float
    live: float
    ready: float
    worst_seconds: float
    peak_bytes: int
    recovery_seconds: float
    failures: dict[str, int]

    def write(self) -> None:
        """Add the row to the table."""
        FIGURES.parent.mkdir(exist_ok=True)
        with FIGURES.open("a") as table:
            table.write(json.dumps(vars(self)) + "\n")

    def require(self, *, answered: float = 0.995, live: float = 0.995, peak_bytes: int | None = None) -> None:
        """Raises AssertionError with all figures when honest callers were answered less often, or memory was more."""
        assert self.requests >= LEAST_REQUESTS, (
            f"only {self.requests} honest requests: the attack was too short\n{self}"
        )
        assert self.answered >= answered, f"honest callers: {self.answered:.2%}, wanted {answered:.2%}\n{self}"
        assert self.live >= live, f"/livez: {self.live:.2%}, wanted {live:.2%}\n{self}"
        if peak_bytes is not None:
            assert self.peak_bytes <= peak_bytes, f"{self.peak_bytes >> 20} MB, at most {peak_bytes >> 20}\n{self}"


@dataclass
class Attack:
    """A running attack. ``figures`` is there once the block has ended."""

    rows_path: Path
    began: float = 0.0
    ended: float = 0.0
    _figures: list[Figures] = field(default_factory=list)

    @property
    def figures(self) -> Figures:
        """Raises IndexError while the attack runs."""
        return self._figures[0]

    def rows(self, kind: str, since: float = 0.0, until: float = float("inf")) -> list[Row]:
        """What honest callers got for requests begun in this span of time.monotonic, in order of beginning."""
        lines = self.rows_path.read_text().splitlines()
        found = [Row(**json.loads(line)) for line in lines if line.endswith("}")]
        return sorted(
            (row for row in found if row.kind == kind and since <= row.began < until), key=lambda row: row.began
        )


@contextlib.contextmanager
def attack(
    name: str, server: Server, *, callers: int = 4, deadline_seconds: float = 10.0, pause_seconds: float = 0.1
) -> Iterator[Attack]:
    """Attack within the block; honest callers ask before, during and after it. Writes the row of the table.

    Raises TimeoutError when the service is not answering before the attack, or has not recovered
    ``RECOVERY_SECONDS`` after it.
    """
    with tempfile.TemporaryDirectory(prefix="cask-attack-") as folder:
        running = Attack(Path(folder) / "rows.jsonl")
        running.rows_path.touch()
        memory = MemoryWatch(server.process.pid)
        options = ["--callers", str(callers), "--deadline", str(deadline_seconds), "--pause", str(pause_seconds)]
        command = [sys.executable, "-m", "tests.attacks.honest", server.url, str(running.rows_path), *options]
        with _process([*command, "--token", server.token] if server.token else command):
            _wait_for_right(running, FIRST_ANSWERS, 0.0, FIRST_SECONDS, f"honest answers before «{name}»")
            memory.start()
            running.began = time.monotonic()
            try:
                yield running
            finally:
                running.ended = time.monotonic()
                _wait_for_right(running, RIGHT_AGAIN, running.ended, RECOVERY_SECONDS, f"recovery from «{name}»")
                memory.stop()
        running._figures.append(_figures(name, running, memory.peak_bytes))
        running.figures.write()


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield
        assert process.poll() is None, f"the honest callers ended with {process.returncode}"
    finally:
        process.kill()
        process.wait()


def _wait_for_right(running: Attack, count: int, since: float, seconds: float, what: str) -> None:
    """Until the newest so many predictions begun since then were all right."""

    def is_right() -> bool:
        last = running.rows("predict", since)[-count:]
        return len(last) == count and all(row.is_right for row in last)

    try:
        wait_until(is_right, seconds, what)
    except TimeoutError as error:
        seen = Counter(f"{row.status} {row.code}".strip() for row in running.rows("predict", since))
        raise TimeoutError(f"{error}; seen meanwhile: {dict(seen)}") from None


def _figures(name: str, running: Attack, peak_bytes: int) -> Figures:
    rows = running.rows("predict", running.began, running.ended)
    failed = [row for row in running.rows("predict", running.ended) if not row.is_right]
    return Figures(
        attack=name,
        requests=len(rows),
        answered=_share(rows),
        live=_share(running.rows("live", running.began, running.ended)),
        ready=_share(running.rows("ready", running.began, running.ended)),
        worst_seconds=max((row.seconds for row in rows if row.is_right), default=0.0),
        peak_bytes=peak_bytes,
        recovery_seconds=max((row.began + row.seconds - running.ended for row in failed), default=0.0),
        failures=dict(Counter(f"{row.status} {row.code}".strip() for row in rows if not row.is_right)),
    )


def _share(rows: list[Row]) -> float:
    return sum(row.is_right for row in rows) / len(rows) if rows else 1.0
