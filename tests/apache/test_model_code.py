"""Models with code behind the real Apache: two of at most twenty lines; asked, killed, stopped, changed, refused."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from app.engine.client import EngineClient
from app.model_code import adding
from app.model_code.adding import NewCode
from app.models.manifests import CodeSpec
from tests import bad_input, servers
from tests.servers import ROOT, Answer, Server, wait_until

EXAMPLES = ROOT / "examples" / "models"
NAMES = ("tickets", "brightness")
PATIENCE_SECONDS = 60.0
MAX_REQUESTS_EACH = 5000
LATE = {"text": "My parcel is late"}


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    """The demonstration models and two models with code."""
    folder = servers.make_state_dir()
    place = folder / "models"
    shutil.copytree(ROOT / "models", place)
    for name in NAMES:
        adding.add(NewCode(EXAMPLES / name, name, "1"), place)
    hostile = folder / "hostile"
    hostile.mkdir()
    (hostile / "model.py").write_text(HOSTILE)
    adding.add(NewCode(hostile, "hostile", "1", limits=CodeSpec(timeout_seconds=3.0, memory_mb=500)), place)
    fragile = folder / "fragile"
    fragile.mkdir()
    (fragile / "model.py").write_text(FRAGILE.replace("LAMP", str(folder / "lamp")))
    (folder / "lamp").touch()
    (folder / "lamp").chmod(0o644)
    adding.add(NewCode(fragile, "fragile", "1"), place)
    yield place
    shutil.rmtree(folder)


FRAGILE = """
from cask import Model


class Fragile(Model):
    def load(self, folder):
        print("looking for the lamp")
        open("LAMP").close()

    def predict(self, x: list[int]) -> list[int]:
        return x
"""

HEAVY = """
from cask import Model


class Heavy(Model):
    def load(self, folder):
        self.held = b"x" * int((folder / "bytes.txt").read_text())

    def predict(self, x: list[int]) -> list[int]:
        return x
"""

HOSTILE = """
import ctypes, os, subprocess, sys, time

from cask import Model


class Hostile(Model):
    def predict(self, do: list[str], more: list[list[float] | None]) -> list[str]:
        return [getattr(self, each)() for each in do]

    def nothing(self): return "done"
    def hang(self): time.sleep(600)
    def leave(self): os._exit(0)
    def segfault(self): ctypes.string_at(0)
    def allocate(self): return str(len(bytearray(10_000_000_000)))
    def flood(self): return str(print("line\\n" * 200_000))
    def stop(self): sys.exit(3)
    def wrong(self): return 3
    def large(self): return "a" * 17_000_000
    def children(self): [subprocess.Popen(["sleep", "601"]) for _ in range(20)]; os._exit(0)
"""


PLUGIN = """
from flask import Blueprint, request

from cask import predict

blueprint = Blueprint("desk", __name__)


@blueprint.post("/desk")
def sort():
    photo = request.files["photo"]
    return {
        "one": predict("tickets", "My parcel is late"),
        "several": predict("tickets", [{"text": "refund"}, {"text": "parcel"}], top=2),
        "areas": predict("brightness", photo, threshold=0.3)["areas"],
    }
"""


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    plugin = store.parent / "plugins" / "desk"
    plugin.mkdir(parents=True)
    (plugin / "plugin.toml").write_text('name = "desk"\nversion = "1"\ncask = ">=1,<2"\n')
    (plugin / "__init__.py").write_text(PLUGIN)
    ours = {"PLUGINS_DIR": str(plugin.parent), "REQUEST_MAX_WAIT_SECONDS": "60", "MODELS_KEEP_PREVIOUS_SECONDS": "0"}
    with servers.running(MODELS_DIR=str(store), **ours) as running:
        yield running


@pytest.fixture(scope="module")
def photo() -> bytes:
    return (ROOT / "models" / "samples" / "cone.jpg").read_bytes()


def ask(server: Server, name: str, document: Any, query: str = "") -> Answer:
    kind = {"Content-Type": "application/json"}
    return server.ask(f"/v1/models/{name}/predict{query}", json.dumps(document).encode(), kind)


def worker_pid(server: Server, name: str) -> int:
    """The process of a model with code; 0 while there is none."""
    return next(iter(worker_pids(server, name)), 0)


def worker_pids(server: Server, name: str) -> list[int]:
    """The processes of all versions of a model with code."""
    found = []
    for path in Path(f"/proc/{server.engine_pid()}/task").glob("*/children"):
        # A thread or a process may end while it is looked at.
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                if f"/{name}/" in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(int(child))
    return found


def test_text_is_answered_one_and_several_in_their_order(server: Server) -> None:
    one = ask(server, "tickets", {**LATE, "top": 2})
    several = ask(server, "tickets", {"items": [LATE, {"text": "refund refund"}]}, "?top=1")

    assert one.status == 200, one.body
    assert one.json["results"] == [[{"label": "shipping", "score": 0.5}, {"label": "billing", "score": 0.0}]]
    assert one.json["model"]["name"] == "tickets"
    assert "predict;dur=" in one.headers["Server-Timing"]
    assert [rows[0]["label"] for rows in several.json["results"]] == ["shipping", "returns"]


@pytest.mark.parametrize(
    ("document", "code", "said"),
    [
        ({"text": " "}, "input_refused", "the text is empty"),
        ({"items": [LATE, {"text": ""}]}, "input_refused", "items[1]: the text is empty"),
        ({"text": 3}, "option_invalid", "text is 3."),
        ({"items": [LATE, {"text": None}]}, "option_invalid", "items[1].text is None."),
        ({"text": "a" * 4001}, "option_invalid", "text is 'aaa"),
        ({**LATE, "top": 6}, "option_invalid", "top is 6."),
        ({**LATE, "topp": 6}, "option_invalid", "'topp' is unknown."),
        ({"top": 1}, "option_invalid", "text is missing."),
        ({"items": [LATE, {"texte": "a"}]}, "option_invalid", "'items[1].texte' is unknown."),
        ({"items": "a"}, "option_invalid", "items is no list of objects."),
        ({"items": []}, "option_invalid", "The request holds no item."),
        ({**LATE, "items": [LATE]}, "option_invalid", "'text' is unknown."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(server: Server, document: Any, code: str, said: str) -> None:
    answer = ask(server, "tickets", document)

    assert (answer.json["code"], answer.status) == (code, 422)
    assert answer.json["detail"].startswith(said)


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        ({"do": "nothing", "more": [1.5] * 200_000}, 200, ""),
        ({"do": "nothing", "more": [1] * 6_000_000}, 413, "The request has more than 1000000 values."),
        ({"do": "nothing", "more": [0.12345678901234567] * 900_000}, 413, "The request is too large for the engine"),
        ({"do": "a" * 12_000_000}, 413, "The request is too large for the engine"),
        ({"do": "large"}, 500, "The model failed: AnswerTooLarge."),
    ],
    ids=["many", "too many", "long", "text", "answer"],
)
def test_large_request_or_answer_costs_nobody_else_anything(
    server: Server, document: Any, status: int, said: str
) -> None:
    web, worker = server.pids("web"), worker_pid(server, "hostile")

    answer = ask(server, "hostile", document)

    assert (answer.status, answer.json.get("detail", "")[: len(said)]) == (status, said)
    assert ask(server, "tickets", LATE).status == 200
    assert (server.pids("web"), worker_pid(server, "hostile")) == (web, worker)


def test_picture_comes_in_three_ways_with_the_same_answer(server: Server, photo: bytes) -> None:
    path = "/v1/models/brightness/predict"
    form, kind = bad_input.multipart(photo, field_name="photo", threshold="0.4")
    answers = [
        ask(server, "brightness", {"photo": base64.b64encode(photo).decode(), "threshold": 0.4}),
        server.ask(path, form, {"Content-Type": kind}),
        server.ask(f"{path}?threshold=0.4", photo, {"Content-Type": "image/jpeg"}),
    ]

    assert [answer.status for answer in answers] == [200] * 3, [answer.body for answer in answers]
    results = [answer.json["results"] for answer in answers]
    assert results[0] == results[1] == results[2]
    assert sum(row["pixels"] for row in results[0][0]["areas"]) == 64 * 64
    assert Image.open(io.BytesIO(base64.b64decode(results[0][0]["png"]))).size == (64, 64)


@pytest.mark.parametrize(("data", "status", "code"), [(b"junk", 415, "image_unsupported"), (b"", 422, "image_empty")])
def test_bytes_that_are_no_picture_never_reach_the_model(server: Server, data: bytes, status: int, code: str) -> None:
    answer = ask(server, "brightness", {"photo": base64.b64encode(data).decode()})

    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.json["detail"].startswith("photo: ")


def test_description_has_the_models_own_parameters(server: Server) -> None:
    paths = server.ask("/openapi.json").json["paths"]
    content = paths["/v1/models/tickets/predict"]["post"]["requestBody"]["content"]
    one = content["application/json"]["schema"]["anyOf"][0]

    assert one["properties"]["top"] == {"type": "integer", "minimum": 1, "maximum": 5, "default": 1}
    assert set(content) == {"application/json"}
    assert "multipart/form-data" in paths["/v1/models/brightness/predict"]["post"]["requestBody"]["content"]


def test_other_protocols_and_pages_live_beside_models_with_code(server: Server) -> None:
    answers = {path: server.ask(path).status for path in ("/", "/models", "/v1/models", "/v2/models", "/readyz")}

    assert set(answers.values()) == {200}, answers
    assert server.ask("/v1/models/tickets").json["task"] == "code"
    assert ask(server, "site-safety-classifier", LATE).status == 404
    assert server.ask("/v1/classify?model=tickets", b"junk", {"Content-Type": "image/jpeg"}).status == 404


class Load:
    """Callers of three models until the block ends: the status of every answer, with its moment."""

    def __init__(self, server: Server, photo: bytes) -> None:
        self._server, self._photo = server, photo
        self.found: dict[str, list[tuple[float, int]]] = {"tickets": [], "brightness": [], "classify": []}
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in self.found]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: all(map(len, self.found.values())), PATIENCE_SECONDS, "first answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def last(self, name: str) -> int:
        """The latest status."""
        return self.found[name][-1][1]

    def _run(self, name: str) -> None:
        for _ in range(MAX_REQUESTS_EACH):
            if self._is_over.is_set():
                return
            if name == "tickets":
                status = ask(self._server, name, LATE).status
            else:
                path = "/v1/classify" if name == "classify" else f"/v1/models/{name}/predict"
                status = self._server.ask(path, self._photo, {"Content-Type": "image/jpeg"}).status
            self.found[name].append((time.monotonic(), status))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_worker_that_is_killed_or_stopped_costs_others_nothing_and_is_back(
    server: Server, photo: bytes, sent: signal.Signals
) -> None:
    with Load(server, photo) as load:
        first = worker_pid(server, "tickets")
        at = time.monotonic()
        os.kill(first, sent)
        wait_until(lambda: worker_pid(server, "tickets") not in (0, first), PATIENCE_SECONDS, "another process")
        wait_until(lambda: load.last("tickets") == 200, PATIENCE_SECONDS, "answers again")
        seconds = time.monotonic() - at
        seen = {name: len(rows) for name, rows in load.found.items()}
        wait_until(
            lambda: all(len(load.found[name]) > seen[name] + 3 for name in seen), PATIENCE_SECONDS, "more answers"
        )

    print(f"{sent.name}: back after {seconds:.1f} s, { ({name: len(rows) for name, rows in load.found.items()}) }")
    assert {status for name in ("brightness", "classify") for _, status in load.found[name]} == {200}
    assert {status for _, status in load.found["tickets"]} <= {200, 503}


@pytest.mark.parametrize(
    ("does", "status", "code"),
    [
        ("hang", 503, "model_crashed"),
        ("leave", 503, "model_crashed"),
        ("segfault", 503, "model_crashed"),
        ("children", 503, "model_crashed"),
        ("allocate", 500, "internal_error"),
        ("stop", 500, "internal_error"),
        ("wrong", 500, "internal_error"),
        ("no_such", 500, "internal_error"),
        ("flood", 200, ""),
    ],
)
def test_hostile_code_costs_its_own_request_only(
    server: Server, photo: bytes, does: str, status: int, code: str
) -> None:
    wait_until(lambda: ask(server, "hostile", {"do": "nothing"}).status == 200, PATIENCE_SECONDS, "the process")
    with Load(server, photo) as load:
        answer = ask(server, "hostile", {"do": does})
        seen = {name: len(rows) for name, rows in load.found.items()}
        wait_until(lambda: all(len(load.found[name]) > seen[name] for name in seen), PATIENCE_SECONDS, "more answers")

    assert (answer.status, answer.json.get("code", "")) == (status, code), answer.body
    assert (status == 503) == ("Retry-After" in answer.headers)
    assert b"Traceback" not in answer.body
    assert {status for rows in load.found.values() for _, status in rows} == {200}


def test_caller_waits_no_longer_than_it_said(server: Server) -> None:
    wait_until(lambda: ask(server, "hostile", {"do": "nothing"}).status == 200, PATIENCE_SECONDS, "the process")
    kind = {"Content-Type": "application/json", "X-Request-Timeout": "1"}
    answer = server.ask("/v1/models/hostile/predict", b'{"do": "hang"}', kind)

    assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")


def test_version_is_changed_under_load_without_a_lost_request(server: Server, store: Path, photo: bytes) -> None:
    changed = store.parent / "changed"
    shutil.copytree(EXAMPLES / "tickets", changed)
    (changed / "words.txt").write_text("other: parcel\n")
    adding.add(NewCode(changed, "tickets", "2"), store)
    client = EngineClient(server.state_dir / "run" / "engine.sock")
    with Load(server, photo) as load:
        for version in ("2", "1", "2"):
            client.change("promote", "tickets", version, say=lambda line: None)
            wait_until(lambda version=version: _version(server) == version, PATIENCE_SECONDS, f"version {version}")
    client.change("rollback", "tickets", say=lambda line: None)

    assert {status for rows in load.found.values() for _, status in rows} == {200}
    wait_until(lambda: _version(server) == "1", PATIENCE_SECONDS, "version 1")
    wait_until(lambda: len(worker_pids(server, "tickets")) == 1, PATIENCE_SECONDS, "the end of the other process")


def test_new_names_with_code_and_without_are_taken_into_the_running_service(
    server: Server, store: Path, photo: bytes
) -> None:
    adding.add(NewCode(EXAMPLES / "tickets", "newcomer", "1"), store)
    old = ROOT / "models" / "site-safety-classifier" / "1"
    weights_only = store / "newcomer-classifier" / "1"
    shutil.copytree(old, weights_only)
    manifest = (old / "manifest.toml").read_text()
    (weights_only / "manifest.toml").write_text(manifest.replace('"site-safety-classifier"', '"newcomer-classifier"'))
    client = EngineClient(server.state_dir / "run" / "engine.sock")
    picture = {"Content-Type": "image/jpeg"}
    with Load(server, photo) as load:
        for name in ("newcomer", "newcomer-classifier"):
            client.change("promote", name, "1", say=lambda line: None)
            assert server.is_ready()
        wait_until(lambda: ask(server, "newcomer", LATE).status == 200, PATIENCE_SECONDS, "the model with code")
        asked = "/v1/classify?model=newcomer-classifier"
        wait_until(lambda: server.ask(asked, photo, picture).status == 200, PATIENCE_SECONDS, "the classifier")

    assert {status for rows in load.found.values() for _, status in rows} == {200}
    assert "/v1/models/newcomer/predict" in server.ask("/openapi.json").json["paths"]
    answer = server.ask("/v1/classify", photo, picture).json
    assert answer["model"]["name"] == "site-safety-classifier"


def _version(server: Server) -> str:
    version: str = ask(server, "tickets", LATE).json["model"]["version"]
    return version


def test_flask_code_of_a_plugin_asks_models_with_code(server: Server, photo: bytes) -> None:
    form, kind = bad_input.multipart(photo, field_name="photo")
    answer = server.ask("/desk", form, {"Content-Type": kind})

    assert answer.status == 200, answer.body
    assert answer.json["one"] == [{"label": "shipping", "score": 0.5}]
    assert [len(rows) for rows in answer.json["several"]] == [2, 2]
    assert answer.json["areas"]


def test_command_line_asks_a_model_with_code(server: Server, photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "late.json").write_text(json.dumps(LATE))
    (tmp_path / "cone.jpg").write_bytes(photo)
    (tmp_path / "empty.json").write_text('{"text": ""}')
    late = command(server, "tickets", str(tmp_path / "late.json"), "--top", "1")
    cone = command(server, "brightness", str(tmp_path / "cone.jpg"))
    empty = command(server, "tickets", str(tmp_path / "empty.json"))

    assert json.loads(late.stdout)["results"] == [[{"label": "shipping", "score": 0.5}]], late.stderr
    assert json.loads(cone.stdout)["results"][0]["areas"]
    assert empty.returncode == 1
    assert "the text is empty" in empty.stderr
    assert command(server, "", str(tmp_path / "cone.jpg"), "--json").returncode == 0


def command(server: Server, model: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    chosen = ("--model", model) if model else ()
    return flask(server, "predict", *arguments, *chosen, "--url", server.url)


def flask(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = servers.environment("test", PORT=str(server.port), STATE_DIR=str(server.state_dir))
    call = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True)


def test_worker_that_does_not_start_again_is_named_with_what_it_wrote(server: Server, store: Path) -> None:
    """What a disk that was lost does: the process dies, and its successors find no file."""
    lamp = store.parent / "lamp"
    lamp.unlink()
    os.kill(worker_pid(server, "fragile"), signal.SIGKILL)
    wait_until(lambda: _state(server, "fragile") == "failed", PATIENCE_SECONDS, "a model that failed")
    row = server.ask("/v1/models/fragile").json
    ready = server.ask("/readyz")
    status = next(each for each in server.ask("/status").json["engine"]["models"] if each["name"] == "fragile")
    refused = ask(server, "fragile", {"x": 1})
    doctor = flask(server, "doctor", "--json")
    counted = server.ask("/metrics").body.decode()
    lamp.touch()
    wait_until(lambda: _state(server, "fragile") == "ready", PATIENCE_SECONDS, "the model to be back")

    for said in (row["error"], str(ready.json["missing"]), status["error"], doctor.stdout):
        assert "FileNotFoundError" in said
        assert "looking for the lamp" in said
    assert (ready.status, refused.status, refused.json["code"]) == (503, 503, "model_not_ready")
    assert 'cask_model_worker_restarts_total{model="fragile",reason="signal"}' in counted
    assert ask(server, "fragile", {"x": 1}).status == 200


def test_file_that_is_changed_while_it_serves_does_not_run_after_a_restart(server: Server, store: Path) -> None:
    words = store / "tickets" / "1" / "words.txt"
    kept = words.read_bytes()
    words.write_bytes(kept + b"\n")
    assert ask(server, "tickets", LATE).status == 200
    os.kill(worker_pid(server, "tickets"), signal.SIGKILL)
    wait_until(lambda: _state(server) == "failed", PATIENCE_SECONDS, "a model that failed")
    error = server.ask("/v1/models/tickets").json["error"]
    words.write_bytes(kept)
    wait_until(lambda: _state(server) == "ready", PATIENCE_SECONDS, "the model to be back")

    assert "was altered" in error


def test_shadow_is_asked_too_and_its_differences_are_told(server: Server, store: Path) -> None:
    other = store.parent / "shadowed"
    shutil.copytree(EXAMPLES / "tickets", other)
    adding.add(NewCode(other, "shadowed", "1"), store)
    (other / "words.txt").write_text("other: parcel\n")
    adding.add(NewCode(other, "shadowed", "2"), store)
    client = EngineClient(server.state_dir / "run" / "engine.sock")
    client.change("promote", "shadowed", "1", say=lambda line: None)
    client.change("shadow", "shadowed", "2", say=lambda line: None)
    wait_until(lambda: ask(server, "shadowed", LATE).status == 200, PATIENCE_SECONDS, "the model")

    def counts() -> dict[str, Any]:
        answer = ask(server, "shadowed", LATE)
        assert answer.status == 200
        assert answer.json["model"]["version"] == "1"
        known = server.ask("/status").json["engine"]["shadows"]
        found: dict[str, Any] = known.get("shadowed", {"compared": 0})
        return found

    wait_until(lambda: counts()["compared"] > 2, PATIENCE_SECONDS, "comparisons")
    last = counts()
    assert (last["same"], last["failed"], last["version"]) == (0, 0, "2")
    told = flask(server, "model", "shadow", "shadowed")
    assert "the answer" in told.stdout, told.stderr
    client.change("shadow", "shadowed", "", say=lambda line: None)


def test_unloading_returns_the_memory(server: Server, store: Path) -> None:
    heavy = store.parent / "heavy"
    heavy.mkdir()
    (heavy / "model.py").write_text(HEAVY)
    for version, count in (("1", 0), ("2", 300_000_000)):
        (heavy / "bytes.txt").write_text(str(count))
        adding.add(NewCode(heavy, "heavy", version), store)
    client = EngineClient(server.state_dir / "run" / "engine.sock")
    client.change("promote", "heavy", "1", say=lambda line: None)
    before = pss(server)
    client.change("promote", "heavy", "2", say=lambda line: None)
    loaded = pss(server)
    client.change("rollback", "heavy", say=lambda line: None)
    wait_until(lambda: len(worker_pids(server, "heavy")) == 1, PATIENCE_SECONDS, "the end of the other process")
    after = pss(server)

    print(f"PSS in MB: {before / 1e6:.0f} before, {loaded / 1e6:.0f} with it, {after / 1e6:.0f} after")
    assert loaded - before > 290_000_000
    assert abs(after - before) < 50_000_000


def pss(server: Server) -> int:
    """Memory of the engine and all its processes, what is shared divided among those who share it."""
    engine, total = psutil.Process(server.engine_pid()), 0
    for each in (engine, *engine.children(recursive=True)):
        # A process may end while it is looked at.
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            total += each.memory_full_info().pss
    return total


def test_file_that_was_changed_after_it_was_added_is_not_run(server: Server, store: Path) -> None:
    adding.add(NewCode(EXAMPLES / "tickets", "tickets", "3"), store)
    with (store / "tickets" / "3" / "model.py").open("a") as file:
        file.write("\n")
    client = EngineClient(server.state_dir / "run" / "engine.sock")

    with pytest.raises(Exception, match="was altered"):
        client.change("promote", "tickets", "3", say=lambda line: None)
    assert ask(server, "tickets", LATE).status == 200


def test_no_code_runs_where_it_is_switched_off(store: Path) -> None:
    settings = {"MODELS_DIR": str(store), "MODELS": "tickets@1,site-safety-classifier", "MODEL_CODE": "off"}
    with servers.running(wait=False, **settings) as off:
        wait_until(lambda: _state(off) == "failed", PATIENCE_SECONDS, "a refusal")

        assert ask(off, "tickets", LATE).json["code"] == "model_not_ready"
        assert "MODEL_CODE is off" in off.ask("/v1/models/tickets").json["error"]
        assert not worker_pid(off, "tickets")


def _state(server: Server, name: str = "tickets") -> str:
    try:
        rows = server.ask("/v1/models").json["models"]
    except (OSError, ValueError, KeyError):
        return ""
    return str(next((row["state"] for row in rows if row["name"] == name), ""))
