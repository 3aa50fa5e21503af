"""What `flask status` shows: one screen of 80 columns that names what somebody should act on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from click.testing import CliRunner

from app import config
from app.cli import status_screen

STATUS: dict[str, Any] = {
    "environment": "prod",
    "version": "1.2.0",
    "revision": "79f73a5b12cd",
    "uptime_seconds": 273_900.0,
    "cores": 4,
    "engine": {
        "state": "up",
        "resident_bytes": 310e6,
        "models": [
            {"name": "m", "version": "2", "state": "ready", "computed_by": "openvino int8", "error": ""},
            {"name": "m", "version": "3", "state": "loading", "computed_by": "", "error": ""},
        ],
        "roles": {"m": {"active": "2", "canary": "3", "canary_share": 10.0}},
    },
    "processes": [{"role": "web", "resident_bytes": 80e6}, {"role": "web", "resident_bytes": 90e6}],
    "jobs": {"state": "up", "queued": 3, "running": 1},
    "plugins": [{"name": "claims", "state": "serving"}],
    "load": {
        "seconds": 300,
        "requests_per_second": 12.5,
        "failed_per_second": 0.0,
        "shed_per_second": 0.0,
        "in_flight": 2,
        "p50_seconds": 0.008,
        "p99_seconds": 0.045,
    },
    "refused": {"engine_busy": 7, "image_unsupported": 1},
    "ends": [],
    "memory": {"used_bytes": 500_000_000, "limit_bytes": 2_000_000_000},
    "disk": {"free_bytes": 50_000_000_000, "total_bytes": 100_000_000_000},
    "certificate": {"days_left": 79},
    "capacity": {"requests_per_second": 40.0, "measured_at": "2026-11-20T10:00:00Z"},
    "settings": {"changed": [], "restart": [], "error": ""},
}


def shown(change: dict[str, Any], differing: list[str] | None = None, readyz: dict[str, Any] | None = None) -> str:
    """The screen of a service whose status is changed so."""
    status = copy.deepcopy(STATUS) | change
    said = {"readyz": readyz or {"ready": True}, "status": status, "differing_files": differing or []}
    with CliRunner().isolation() as (output, *_):
        status_screen.show(config.describe("prod"), said)
        return output.getvalue().decode()


def test_all_is_on_one_screen() -> None:
    screen = shown({})

    assert len(screen.splitlines()) <= 24
    assert max(map(len, screen.splitlines())) <= 80
    assert screen.splitlines()[0] == "  Cask 1.2.0 (79f73a5b12cd), prod, port 8000, up 3 d 4 h, 4 cores"
    for words in (
        *("m@2  active, ready, openvino int8", "m@3  canary 10%, loading"),
        *("12.5 requests/s in the last 5 min, 2 in flight; p50 8 ms, p99 45 ms", "31% of 40 requests/s"),
        *("engine_busy 7, image_unsupported 1, since start", "engine 310 MB, web ×2 170 MB"),
        *("500 MB of 2.0 GB, 25%", "3 waiting, 1 running", "50.0 GB of 100.0 GB free", "79 days left"),
        *("claims  serving", "as in the files"),
    ):
        assert words in screen


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"engine": {"state": "away", "reason": "gone"}}, "the engine is away: gone"),
        ({"jobs": {"state": "away"}}, "0 waiting, 0 running; their worker is away"),
        ({"certificate": {"days_left": -2}}, "expired 2 days ago"),
        ({"certificate": {"days_left": 9, "is_refused": True}}, "9 days left; the pair in the files cannot serve"),
        ({"capacity": {}}, "not measured (make loadtest-search)"),
        ({"plugins": [{"name": "x", "state": "left out", "reason": "no"}]}, "x  left out: no"),
        ({"settings": {"changed": ["PORT"], "restart": [], "error": ""}}, "changed in the files: PORT; make reload"),
        ({"settings": {"changed": [], "restart": ["PORT"], "error": ""}}, "still have the start's: PORT; a restart"),
        ({"settings": {"changed": [], "restart": [], "error": "line 3"}}, "the files cannot be used: line 3"),
        ({"ends": [{"time": "now", "role": "web", "cause": "memory"}]}, "now web: memory"),
        ({"load": STATUS["load"] | {"shed_per_second": 1.5}}, "1.5 shed/s"),
        ({"load": STATUS["load"] | {"p50_seconds": None, "p99_seconds": None}}, "in the last 5 min, 2 in flight\n"),
    ],
)
def test_what_is_not_well_is_named(change: dict[str, Any], words: str) -> None:
    assert words in shown(change)


def test_reasons_against_ready_and_files_of_the_host_are_named() -> None:
    screen = shown({}, ["env/prod.env"], {"ready": False, "missing": ["web: away", "engine: away"]})

    assert "no: web: away\n" in screen
    assert "\n             engine: away\n" in screen
    assert "not in this release: env/prod.env; make up" in screen


def test_reloads_and_stops_are_nothing_to_show() -> None:
    ends = [{"time": "now", "role": "web", "cause": cause} for cause in ("recycled", "stopped")]

    assert "Ended" not in shown({"ends": ends})
