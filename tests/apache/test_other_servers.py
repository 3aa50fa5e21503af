"""The app is a plain WSGI application: the same requests get the same answers under others."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bad_input, servers
from tests.servers import Server

MAX_BYTES = 33_554_432


@pytest.fixture(scope="module")
def engine_state() -> Iterator[Path]:
    """An engine that runs beside, without Apache."""
    state_dir = servers.make_state_dir()
    with _process([sys.executable, "-m", "app.engine"], state_dir, "engine.log"):
        yield state_dir
    shutil.rmtree(state_dir, ignore_errors=True)


@contextlib.contextmanager
def _process(command: list[str], state_dir: Path, log: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = servers.environment(
        "test", STATE_DIR=str(state_dir), PYTHONPATH=str(servers.ROOT), ENGINE_MODE="service"
    )
    with (state_dir / log).open("ab") as out:
        process = subprocess.Popen(command, cwd=servers.ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module", params=["apache", "gunicorn", "waitress", "flask"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "apache":
        yield request.getfixturevalue("served")
        return
    state_dir = request.getfixturevalue("engine_state")
    port = servers.free_port()
    commands = {
        "gunicorn": ["-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers=2", "app.factory:create_app()"],
        "flask": ["-m", "flask", "run", "--port", str(port)],
        "waitress": ["-m", "waitress", f"--listen=127.0.0.1:{port}", "--call", "app.factory:create_app"],
    }
    with _process([sys.executable, *commands[request.param]], state_dir, f"{request.param}.log") as process:
        found = Server(f"http://127.0.0.1:{port}", port, state_dir, process, state_dir / f"{request.param}.log")
        servers.wait_until(lambda: process.poll() is not None or found.is_ready(), 90, f"{request.param} to be ready")
        assert process.poll() is None, found.log()
        yield found


def test_detect_answers_raw_bytes(server: Server, sample_path: Path) -> None:
    answer = server.ask("/v1/detect", sample_path.read_bytes(), {"Content-Type": "image/jpeg"})

    assert answer.status == 200
    assert answer.json["results"][0]["detections"]


def test_classify_answers_several_parts(server: Server, sample_path: Path) -> None:
    body, content_type = bad_input.multipart(sample_path.read_bytes(), sample_path.read_bytes(), top_k=2)

    answer = server.ask("/v1/classify", body, {"Content-Type": content_type})

    assert answer.status == 200
    assert [len(result["predictions"]) for result in answer.json["results"]] == [2, 2]


def test_json_is_answered(server: Server, sample_path: Path) -> None:
    body = bad_input.json_body(sample_path.read_bytes(), score_threshold=0)

    answer = server.ask("/v1/detect", body, {"Content-Type": "application/json"})

    assert answer.status == 200


def test_models_are_listed_and_shown(server: Server) -> None:
    models = server.ask("/v1/models").json["models"]

    assert models
    assert all(model["state"] == "ready" for model in models)
    assert server.ask(f"/v1/models/{models[0]['name']}").json["digest"] == models[0]["digest"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/status", "/version", "/"])
def test_health_and_page_answer(server: Server, path: str) -> None:
    assert server.ask(path).status == 200


@pytest.mark.parametrize(
    "case", [each for each in bad_input.cases(MAX_BYTES) if each.name != "body_too_large"], ids=lambda case: case.name
)
def test_bad_input_is_refused_alike(server: Server, case: bad_input.BadInput) -> None:
    answer = server.ask(f"/v1/detect{case.query}", case.body, {"Content-Type": case.content_type})

    assert (answer.status, answer.json["code"]) == (case.status, case.code)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_requests_of_earlier_clients_are_answered(server: Server, sample_path: Path) -> None:
    image = base64.b64encode(sample_path.read_bytes()).decode()
    body = {"requests": [{"image": {"content": image}, "features": [{"score_th": 0.5}]}] * 2}

    answer = server.ask("/predict", json.dumps(body).encode(), {"Content-Type": "application/json"})
    flat = server.ask("/", json.dumps({"image": image}).encode(), {"Content-Type": "application/json"})

    assert answer.status == flat.status == 200
    assert answer.json["responses"][0] == answer.json["responses"][1]
    assert flat.json["normalizedVertices"]
    assert server.ask("/status").json["success"] == "OK"


def test_json_rpc_batch_is_answered(server: Server, sample_path: Path) -> None:
    image = base64.b64encode(sample_path.read_bytes()).decode()
    calls = [
        {"jsonrpc": "2.0", "method": "Image.detect", "params": {"image": image}, "id": 1},
        {"jsonrpc": "2.0", "method": "App.index"},
        {"jsonrpc": "2.0", "method": "Image.classify", "params": [image, 1], "id": 2},
    ]

    answer = server.ask("/api", json.dumps(calls).encode(), {"Content-Type": "application/json"})

    assert [reply["id"] for reply in answer.json] == [1, 2]
    assert answer.json[0]["result"]["results"][0]["detections"]


def test_description_is_the_same_everywhere(server: Server) -> None:
    assert "/v1/detect" in server.ask("/openapi.json").json["paths"]
    assert server.ask("/docs/assets/swagger-ui.css").status == 200
