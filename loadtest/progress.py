"""How it goes, in one line, while it goes: read from the workers' files, so that nobody is asked."""

from __future__ import annotations

import time

import numpy as np

from loadtest import request_log as records
from loadtest.outcomes import Outcome
from loadtest.plans import Plan, moments
from loadtest.schedule import seconds
from loadtest.statistics import percentile
from loadtest.verdict import so_far

WINDOW_SECONDS = 5.0


class Follower:
    """Knows the plan, and reads what has been written."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._began = time.monotonic()
        is_open = plan.profile.model == "open"
        self._planned = moments(plan).size if is_open else 0
        self._seconds = seconds(plan.profile.stages)

    def line(self) -> str:
        """The verdict so far, the moment, counts that are not 0, p99 of the last seconds, and how many were sent."""
        record = records.read(self._plan.folder, self._plan.workers)
        found = record.rows
        if not found.size:
            return f"starting, {time.monotonic() - self._began:.0f} s"
        moment = float(found["done"].max())
        sent = int(np.sum(found["outcome"] != Outcome.DROPPED))
        right = int(np.sum(found["outcome"] == Outcome.RIGHT))
        recent = records.response_ms(found[found["done"] > moment - WINDOW_SECONDS])
        wrong = int(np.isin(found["outcome"], (Outcome.WRONG, Outcome.MIXED_UP)).sum())
        p99 = percentile(recent, 0.99)
        word, p99_text = self._word(record), "no answer" if np.isinf(p99) else f"{p99:.0f} ms"
        # What matters stands first: a terminal cuts the line where it ends.
        parts = [word, f"{min(moment, self._seconds):.0f}/{self._seconds:.0f} s", f"{right} right"]
        counts = {"wrong": wrong, "failed": sent - right - wrong, "dropped": found.size - sent}
        parts += [f"{count} {name}" for name, count in counts.items() if count]
        parts += [f"p99 {p99_text}"]
        parts += [f"{sent} of {self._planned} sent" if self._planned else f"{sent} sent"]
        return " · ".join(parts)

    def _word(self, record: records.Record) -> str:
        status = so_far(record, self._plan.profile, self._plan.slo)
        return "warming up" if status is None else f"{status.name} so far"
