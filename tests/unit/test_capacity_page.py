"""The capacity card on its page: what a search leaves, nothing, and files that are something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.web import capacity_card
from tests import fakes
from tests.fakes import FakeEngine

FOUND: dict[str, Any] = {
    "capacity_rps": 271.4,
    "lowest_failing_rps": 300.0,
    "reason": "",
    "server": {"cores": 2},
    "env": "prod",
    "url": "http://127.0.0.1:8000",
    "promise": {"name": "interactive", "limits_ms": {"p95": 250.0}, "max_failed_share": 0.001},
    "confidence": 0.95,
    "mix": {"classify_raw": 3, "detect_raw": 1},
    "steps": [
        {"rate": 300.0, "verdict": "FAIL", "right_rps": 281.0, "response_ms": {"p95": 612.0}},
        {"rate": 271.4, "verdict": "PASS", "right_rps": 271.2, "response_ms": {"p95": 118.0}},
    ],
    "measured_at": "2026-11-20T20:42:00Z",
    "command": "make loadtest-search ENV=prod",
    "fingerprint": {
        "generator_cpu": "Example CPU",
        "computed_by": {"site-safety-detector": "openvino int8"},
        "server_version": "0.1.0",
        "server": {"engine_workers": 2},
    },
}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    # A checkout may hold results of its own.
    monkeypatch.setattr(capacity_card, "ROOT", tmp_path)
    return fakes.make_app(tmp_path, FakeEngine()).test_client()


def put(client: FlaskClient, text: str) -> None:
    (client.application.extensions["settings"].state_dir / "capacity.json").write_text(text)


def test_card_says_how_much_on_what_and_when(client: FlaskClient) -> None:
    put(client, json.dumps(FOUND))

    english, german = client.get("/capacity").text, client.get("/capacity", headers={"Accept-Language": "de"}).text

    assert "<b>271</b> requests a second" in english
    for words in ("300 a second is too much", "p95 within 250 ms", "Nov 20, 2026, 20:42 UTC", "2 cores, Example CPU"):
        assert words in english
    assert "classify_raw 75%, detect_raw 25%" in english
    assert english.index(">271<") < english.index(">300<")
    assert "<b>271</b> Anfragen je Sekunde" in german


def test_without_one_the_page_says_how_to_make_one(client: FlaskClient) -> None:
    page = client.get("/capacity").text

    assert "make loadtest-search ENV=test" in page
    assert "make loadtest-search" in page
    assert "cp loadtest" not in page


def test_a_search_that_found_nothing_is_told(client: FlaskClient) -> None:
    put(client, json.dumps({**FOUND, "capacity_rps": 0, "lowest_failing_rps": None, "steps": []}))

    assert "No rate keeps the promise" in client.get("/capacity").text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"capacity_rps": "much"}', json.dumps({**FOUND, "steps": [{}]})])
def test_a_file_that_is_something_else_is_as_none(client: FlaskClient, text: str) -> None:
    put(client, text)

    response = client.get("/capacity")

    assert response.status_code == 200
    assert "make loadtest-search" in response.text


def test_what_a_search_writes_is_what_the_page_reads(tmp_path: Path) -> None:
    """The names of the fields are the load test's own; its module is not imported by the service."""
    source = (Path(__file__).parents[2] / "loadtest" / "capacity.py").read_text()

    assert all(f'"{name}"' in source for name in FOUND)
