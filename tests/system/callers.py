"""Four honest callers that predict while the container changes, two on one connection each, and what became of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.attacks.honest import Row
from tests.servers import ROOT, wait_until
from tests.system import containers
from tests.system.containers import Stack

FIRST_SECONDS = 60.0


@dataclass
class Callers:
    """The rows that they have written so far."""

    rows_path: Path
    kind: str
    _lines: list[str] = field(default_factory=list)

    def rows(self) -> list[Row]:
        """Their requests of this kind; a line that is being written is none yet."""
        lines = self._lines or self.rows_path.read_text().splitlines()
        rows = (Row(**json.loads(line)) for line in lines if line.endswith("}"))
        return [row for row in rows if row.kind == self.kind]

    @property
    def lost(self) -> Counter[str]:
        """Why requests were not answered rightly, and how often."""
        rows = self.rows()
        return Counter(f"{row.status} {row.code}".strip() for row in rows if not row.is_right)

    @property
    def gap_seconds(self) -> float:
        """The longest time in which somebody waited and no answer arrived at any of them."""
        return self.longest_gap()[0]

    def longest_gap(self, since: float = float("-inf"), until: float = float("inf")) -> tuple[float, float]:
        """The same between two moments of ``time.monotonic``, and when it began.

        A moment in which none of them has asked is none of the service's: on a busy machine callers wait for the
        processor too.
        """
        rows = sorted(self.rows(), key=lambda row: row.began + row.seconds)
        # When the earliest of the requests began that ended at this row or later.
        asked = list(itertools.accumulate((row.began for row in reversed(rows)), min))[::-1]
        ends = [(number, row.began + row.seconds) for number, row in enumerate(rows) if row.is_right]
        within = [(number, end) for number, end in ends if since <= end <= until]
        gaps = ((last, max(at, asked[last + 1]), end) for (last, at), (_, end) in itertools.pairwise(within))
        return max(((end - began, began) for _, began, end in gaps), default=(float("inf"), since))

    def _right(self) -> list[Row]:
        return [row for row in self.rows() if row.is_right]

    def describe(self) -> str:
        """One line for people."""
        return f"{len(self._right())} answered, lost {dict(self.lost)}, longest gap {self.gap_seconds:.1f} s"

    def end(self) -> None:
        """Keep what was written; nothing more comes."""
        self._lines = self.rows_path.read_text().splitlines()

    def wait_for(self, count: int) -> None:
        """Until so many more were answered rightly."""
        wanted = len(self._right()) + count
        wait_until(lambda: len(self._right()) >= wanted, FIRST_SECONDS, f"honest answers: {self.describe()}")


@contextlib.contextmanager
def asking(stack: Stack, kind: str = "predict") -> Iterator[Callers]:
    """Callers of the published port within the block, see asking_at."""
    stack.token = stack.token or stack.make_token()
    with asking_at(f"http://127.0.0.1:{stack.port}", stack.token, kind) as callers:
        yield callers


@contextlib.contextmanager
def asking_at(
    url: str, token: str, kind: str = "predict", *, inside: Sequence[str] = (), options: Sequence[str] = ()
) -> Iterator[Callers]:
    """Callers within the block; they have had answers before it, and have some after it.

    ``kind``: which of their requests count, see tests/attacks/honest.py; ``options``: of that program, which the
    command ``inside`` runs.
    """
    with tempfile.TemporaryDirectory(prefix="cask-callers-") as folder:
        callers = Callers(Path(folder) / "rows.jsonl", kind)
        callers.rows_path.touch()
        command = [*inside, sys.executable, "-m", "tests.attacks.honest", url, str(callers.rows_path)]
        process = subprocess.Popen(
            [*command, "--token", token, "--keeping", "2", *options], cwd=ROOT, env=containers.environment()
        )
        try:
            callers.wait_for(8)
            yield callers
            callers.wait_for(8)
        finally:
            process.kill()
            process.wait()
            callers.end()
        print(callers.describe())
