"""Every metric is declared in full, and docs/metrics.md says what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app.config import ROOT
from app.telemetry import __main__ as document
from app.telemetry.metrics import DECLARED, Metric

UNITS = ("seconds", "bytes", "images")


def test_document_is_current() -> None:
    assert (ROOT / document.DOCUMENT).read_text() == document.document(), "Run `make docs`."


@pytest.mark.parametrize("metric", DECLARED.values(), ids=lambda each: each.name)
def test_each_metric_is_declared_as_prometheus_asks(metric: Metric) -> None:
    assert re.fullmatch(r"cask_[a-z0-9_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.sentence[0].isupper() or metric.sentence[0].isdigit()
    assert metric.sentence.endswith(".")
    assert metric.kind != "histogram" or metric.unit in UNITS
    assert list(metric.buckets) == sorted(metric.buckets)
    assert all(label.values or (label.pattern and label.of) for label in metric.labels.values())
    assert "le" not in metric.labels


def test_metrics_are_counted_by_their_declaration_only() -> None:
    """A name written by hand somewhere could not be found in the document."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        if path == ROOT / "app/telemetry/metrics.py" or path == Path(document.__file__):
            continue
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}

        assert not {text for text in texts if isinstance(text, str) and re.fullmatch(r"cask_\w+_(total|seconds)", text)}


def test_what_is_shown_is_declared_and_can_be_read(client: FlaskClient) -> None:
    client.get("/v1/models")
    shown = {each.name: each for each in text_string_to_metric_families(client.get("/metrics").text)}
    known = {metric.name.removesuffix("_total"): metric for metric in DECLARED.values()}

    assert shown
    assert set(shown) <= set(known)
    assert {name: each.type for name, each in shown.items()} == {name: known[name].kind for name in shown}
    assert {name: each.documentation for name, each in shown.items()} == {name: known[name].sentence for name in shown}


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("192.0.2.1", {}, 403),
        ("10.1.2.3", {}, 200),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, 403),
        ("", {}, 403),
    ],
)
def test_metrics_are_for_this_machine_and_those_who_are_allowed(
    tmp_path: Path, address: str, headers: dict[str, str], status: int
) -> None:
    from tests import fakes

    with fakes.logging_kept():
        client = fakes.make_app(tmp_path, metrics_allow=("10.0.0.0/8",)).test_client()
    answer = client.get("/metrics", headers=headers, environ_overrides={"REMOTE_ADDR": address})

    assert answer.status_code == status
    assert (b"cask_ready" in answer.data) == (status == 200)
