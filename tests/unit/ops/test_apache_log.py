"""What Apache answers by itself is counted once, and its file takes no room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.routing import Map, Rule

from app.telemetry import metrics
from app.telemetry.metrics import REFUSED, REQUESTS
from app.telemetry.shards import MetricsShard
from app.web.middleware.request_metrics import Routes
from app.web.ops.apache_log import FILE, ApacheLog

ROUTES = Routes(Map([Rule("/v1/detect", methods=["POST"]), Rule("/static/<path:filename>"), Rule("/größe")]))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Apache's file, and a process that counts."""
    path = tmp_path / FILE
    path.parent.mkdir(parents=True)
    path.touch()
    metrics.begin(tmp_path, "ops")
    yield path
    metrics._use(MetricsShard.in_memory())
    metrics._place = None


def append(path: Path, *lines: str, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(lines) + end)


def counts(state_dir: Path) -> dict[tuple[str, ...], float]:
    return {labels: row[0] for labels, row in metrics.read(state_dir).get(REQUESTS, {}).items()}


def test_lines_are_counted_by_address_and_status(tmp_path: Path, log: Path) -> None:
    append(log, "503 1 POST /v1/detect", "503 1 POST /v1/detect", "200 - GET /static/a/b.css", "400 - - -")
    append(log, "404 - BREW /secret", "nonsense", r"200 - GET /gr\xc3\xb6\xc3\x9fe")

    ApacheLog(tmp_path, ROUTES).read()

    assert counts(tmp_path) == {
        ("/v1/detect", "POST", "503", "apache"): 2,
        ("/static/{filename}", "GET", "200", "apache"): 1,
        ("(none)", "other", "400", "apache"): 1,
        ("(none)", "other", "404", "apache"): 1,
        ("/größe", "GET", "200", "apache"): 1,
    }
    assert {labels: row[0] for labels, row in metrics.read(tmp_path)[REFUSED].items()} == {
        ("engine_busy", "apache"): 2,
        ("bad_request", "apache"): 1,
        ("not_found", "apache"): 1,
    }


def test_a_successor_goes_on_where_the_one_before_it_stopped(tmp_path: Path, log: Path) -> None:
    first = ApacheLog(tmp_path, ROUTES)
    append(log, "503 1 POST /v1/detect", "503 1 POST /v1/de", end="")
    first.read()
    append(log, "tect")
    # As long as the first one lives, it alone counts.
    ApacheLog(tmp_path, ROUTES).read()
    first.close()

    ApacheLog(tmp_path, ROUTES).read()

    assert counts(tmp_path) == {("/v1/detect", "POST", "503", "apache"): 2}


def test_what_was_read_takes_no_room(tmp_path: Path, log: Path) -> None:
    reader = ApacheLog(tmp_path, ROUTES)
    for _ in range(3):
        append(log, *["200 - GET /static/site.css"] * 40_000)
        reader.read()

    assert counts(tmp_path)["/static/{filename}", "GET", "200", "apache"] == 120_000
    assert log.stat().st_size > 3_000_000
    assert log.stat().st_blocks * 512 < 100_000
