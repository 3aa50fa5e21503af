"""Rows of requests that nobody sent, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from loadtest.outcomes import Outcome
from loadtest.profiles import Profile, Slo
from loadtest.request_log import ROW, Record
from loadtest.schedule import Stage

PROFILE = Profile("made", "?", (Stage(100, 10, 10),), "classify", claims=(0.5, 0.99))
SLO = Slo("made", {0.5: 100.0, 0.99: 500.0}, max_failed_share=0.001)


def rows(count: int, response_ms: Any = 50.0, outcome: Outcome = Outcome.RIGHT, lag_ms: float = 0.5) -> np.ndarray:
    """So many requests, ten a second."""
    made = np.zeros(count, ROW)
    made["intended"] = np.arange(count) / 10
    made["sent"] = made["intended"] + lag_ms / 1000
    made["done"] = made["intended"] + np.asarray(response_ms) / 1000
    made["outcome"] = outcome
    return made


def record(made: np.ndarray, workers: int = 1, **told: Any) -> Record:
    """The record of a run in which all went well."""
    one = {
        "worker": 0,
        "planned": int(made.size),
        "rows": int(made.size),
        "cpu_seconds": 0.1,
        "stopped_early": "",
        **told,
    }
    return Record(made, [one], workers)
