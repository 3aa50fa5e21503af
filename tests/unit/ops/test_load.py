"""Rates and times of the last minutes, from counts that only grow; and which settings are not in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import config
from app.config import in_force
from app.errors import SettingsError
from app.telemetry import metrics
from app.telemetry.metrics import Sums
from app.web.ops.load import KEPT_LOOKS, Load, quantile, refusals


def counted(requests: int, failed: int = 0, watched: int = 0) -> Sums:
    """What all processes have counted: each request took about 30 ms."""
    buckets = [0.0] * metrics.REQUEST_SECONDS.size
    buckets[metrics.SECONDS.index(0.05)] = requests
    return {
        metrics.REQUESTS: {
            ("/v1/classify", "POST", "200", "app"): [requests - failed],
            ("/v1/classify", "POST", "502", "apache"): [failed],
            ("/metrics", "GET", "200", "app"): [watched],
        },
        metrics.REQUEST_SECONDS: {("/v1/classify",): buckets, ("/metrics",): [watched] * len(buckets)},
        metrics.REFUSED: {("engine_busy", "app"): [1], ("engine_busy", "apache"): [2], ("token_missing", "app"): [9]},
        metrics.NOT_ADMITTED: {("slow",): [1]},
    }


def test_rates_are_of_the_last_minutes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, sums = [0.0], counted(0)
    monkeypatch.setattr(metrics, "read", lambda state_dir: sums)
    load = Load(tmp_path, {"/metrics"}, clock=lambda: now[0])
    for look in range(KEPT_LOOKS + 50):
        now[0], sums = 10.0 * look, counted(20 * look, look, 1000 * look)
        load.look()

    figures = load.figures(sums)

    assert (figures["seconds"], figures["requests_per_second"], figures["failed_per_second"]) == (300, 2.0, 0.1)
    assert 0.025 < figures["p50_seconds"] < figures["p99_seconds"] <= 0.05


def test_before_anybody_looked_nothing_is_said(tmp_path: Path) -> None:
    figures = Load(tmp_path, ()).figures(counted(10))

    assert (figures["requests_per_second"], figures["p50_seconds"]) == (0.0, None)


def test_quantiles_lie_within_their_bucket() -> None:
    buckets = [0.0] * (len(metrics.SECONDS) + 1)
    buckets[0], buckets[-1] = 99, 1

    assert quantile(buckets, 0.5) == pytest.approx(0.0005, abs=0.0001)
    assert quantile(buckets, 0.999) == metrics.SECONDS[-1]


def test_refusals_are_summed_over_who_refused_the_most_frequent_first() -> None:
    assert list(refusals(counted(1)).items()) == [("token_missing", 9), ("engine_busy", 3)]


def test_settings_that_are_not_in_force_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = config.describe("test").model_copy(update={"state_dir": tmp_path})
    (tmp_path / "run/httpd").mkdir(parents=True)
    in_force.note(running.model_copy(update={"port": 81}), tmp_path / "run/httpd")
    monkeypatch.setattr(config, "resolve", lambda: running.model_copy(update={"web_threads": 7}))

    assert in_force.differences(running) == {"changed": ["WEB_THREADS"], "restart": ["PORT"], "error": ""}
    assert "secret" not in (tmp_path / "run/httpd" / in_force.FILE_NAME).read_text().lower()


def test_files_that_cannot_be_used_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise SettingsError("env/local.env, line 3")

    monkeypatch.setattr(config, "resolve", refuse)

    assert in_force.differences(config.describe("test"))["error"] == "env/local.env, line 3"
