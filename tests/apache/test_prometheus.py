"""A real Prometheus over the running service: it scrapes us, evaluates our rules, and understands every panel."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.config import ROOT
from app.telemetry.metrics import DECLARED
from tests import servers
from tests.servers import Server

MONITORING = ROOT / "docker" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "cask.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
JPEG = {"Content-Type": "image/jpeg"}
PATIENCE_SECONDS = 60.0
# What a histogram is shown as.
SUFFIXES = ("_bucket", "_count", "_sum")

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs Debian's package prometheus, found none",
)


@dataclass
class Prometheus:
    """A running one."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def value(self, expression: str) -> float | None:
        """Of an expression with one value; None where there is none."""
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None


@contextlib.contextmanager
def prometheus(target: str) -> Iterator[Prometheus]:
    """Ours, as docker/monitoring configures it, but in a hurry."""
    folder, port = Path(tempfile.mkdtemp(prefix="cask-prometheus-")), servers.free_port()
    shutil.copytree(MONITORING / "rules", folder / "rules")
    config = (MONITORING / "prometheus.yml").read_text()
    # An engine that hangs costs an answer of /metrics two seconds.
    for name, seconds in (("scrape_interval", 4), ("scrape_timeout", 4), ("evaluation_interval", 1)):
        config = re.sub(rf"{name}: \d+s", f"{name}: {seconds}s", config)
    (folder / "prometheus.yml").write_text(config)
    (folder / "targets").mkdir()
    (folder / "targets" / "cask.json").write_text(json.dumps([{"targets": [target]}]))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        found = Prometheus(f"http://127.0.0.1:{port}")
        servers.wait_until(lambda: _answers(found), PATIENCE_SECONDS, "Prometheus")
        yield found
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        shutil.rmtree(folder)


def _answers(found: Prometheus) -> bool:
    try:
        return found.value("up") == 1
    except OSError:
        return False


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    """One that may be harmed."""
    with servers.running("test", WEB_PROCESSES="2", ENGINE_HANG_SECONDS="600") as server:
        yield server


@pytest.fixture(scope="module")
def watching(service: Server) -> Iterator[Prometheus]:
    """A Prometheus over it."""
    with prometheus(f"127.0.0.1:{service.port}") as found:
        yield found


def test_it_sees_what_we_counted(service: Server, watching: Prometheus, sample_path: Path) -> None:
    for _ in range(7):
        assert service.ask("/v1/classify", sample_path.read_bytes(), JPEG).status == 200
    service.ask("/static/site.css")
    total = 'cask_http_requests_total{job="cask",route="/v1/classify",status="200",by="app"}'

    servers.wait_until(lambda: watching.value(total) == 7, PATIENCE_SECONDS, "seven requests")

    assert watching.value("cask_ready") == 1
    assert watching.value('cask_http_requests_total{route="/static/{filename}",by="apache"}') == 1
    assert watching.value("cask_engine_batch_images_sum") == 7


def test_an_alert_of_ours_is_raised_and_ends(service: Server, watching: Prometheus) -> None:
    def raised() -> set[str]:
        return {each["labels"]["alertname"] for each in watching.ask("alerts")["alerts"]}

    assert raised() <= {"CaskErrors"}
    engine = service.engine_pid()
    servers.suspend(engine)
    try:
        servers.wait_until(lambda: {"CaskEngineAway", "CaskNotReady"} <= raised(), PATIENCE_SECONDS, "the alerts")
    finally:
        servers.resume(engine)
    servers.wait_until(lambda: not raised() & {"CaskEngineAway", "CaskNotReady"}, PATIENCE_SECONDS, "their end")


# What is empty where no alerts are set up; its metric and labels are looked at below.
WITHOUT_DATA = {"Alerts of the service itself"}


def as_grafana_asks(expression: str) -> str:
    for word, value in {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*"}.items():
        expression = expression.replace(word, value)
    return expression


def is_shown(rows: list[dict[str, Any]]) -> bool:
    return bool(rows) and all(row["value"][1] != "NaN" for row in rows)


def test_every_panel_shows_what_happened(service: Server, watching: Prometheus, sample_path: Path) -> None:
    """After predictions, a job, a refusal and a process that ended; Grafana itself draws what this returns."""
    picture = sample_path.read_bytes()
    assert service.ask("/v1/jobs?task=classify", picture, JPEG).status == 202
    os.kill(service.engine_pid(), signal.SIGKILL)
    servers.wait_until(lambda: service.ask("/v1/classify", picture, JPEG).status == 200, PATIENCE_SECONDS, "an engine")

    def empty() -> list[str]:
        # Rates need an answer and a refusal in each of two scrapes; of a minute without any, a quotient is no number.
        for body in (picture, b"no picture"):
            service.ask("/v1/classify", body, JPEG)
        found = [(title, watching.ask("query", query=as_grafana_asks(each))["result"]) for title, each in EXPRESSIONS]
        return [title for title, rows in found if not is_shown(rows) and title not in WITHOUT_DATA]

    try:
        servers.wait_until(lambda: not empty(), PATIENCE_SECONDS, "data for each panel")
    except TimeoutError:
        pytest.fail(f"without data: {empty()}")
    (marks,) = [each["expr"] for each in DASHBOARD["annotations"]["list"] if "expr" in each]
    assert watching.ask("query", query=as_grafana_asks(marks))["resultType"] == "vector"


def test_every_rule_is_understood(watching: Prometheus) -> None:
    rules = [rule for group in watching.ask("rules")["groups"] for rule in group["rules"]]

    written = re.findall(r"^ *- alert: (\w+)$", (MONITORING / "rules" / "cask.yml").read_text(), re.M)
    assert written
    assert sorted(rule["name"] for rule in rules) == sorted(written)
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}


@pytest.mark.parametrize(
    "command",
    [
        ("check", "rules", "rules/cask.yml"),
        ("test", "rules", "rules_test.yml", "rules_days_test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def named(expression: str) -> set[str]:
    found = set(re.findall(r"\bcask_\w+", expression))
    return {
        name if name in DECLARED else next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
        for name in found
    }


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_a_panel_names_metrics_that_exist(title: str, expression: str) -> None:
    assert named(expression)
    assert named(expression) <= set(DECLARED), title
    assert '{instance=~"$instance"' in expression


def test_every_panel_says_which_question_it_answers() -> None:
    assert all(panel["description"].endswith((".", "?")) or "docs/" in panel["description"] for panel in PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


def test_an_alert_names_metrics_that_exist_and_a_place_that_says_what_to_do(watching: Prometheus) -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", OPERATIONS, re.M)
    }
    rules = [rule for group in watching.ask("rules")["groups"] for rule in group["rules"]]
    assert rules

    for rule in rules:
        document, _, anchor = rule["annotations"]["runbook"].partition("#")

        assert named(rule["query"]) <= set(DECLARED)
        assert document == "docs/operations.md"
        assert anchor in headings, rule["name"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert f"`{rule['name']}`" in OPERATIONS


@pytest.mark.parametrize("text", [*(panel["description"] for panel in PANELS)])
def test_a_panels_link_leads_somewhere(text: str) -> None:
    for anchor in re.findall(r"docs/operations\.md#([\w-]+)", text):
        assert re.search(rf"^#+ {anchor.replace('-', '[^a-z]+')}$", OPERATIONS, re.M | re.I), anchor
