"""Tokens through Apache: asked for in prod, revoked within a second everywhere, and what is for operators only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import servers
from tests.apache import test_documented_commands
from tests.servers import Answer, Server

KEY = "5c1f0b7e93a84d26ba0e17c4f2d8396b"
IMAGE = {"Content-Type": "image/jpeg"}
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def prod() -> Iterator[Server]:
    settings = {"WEB_PROCESSES": "4", "LOG_FORMAT": "text", "CASK_ANNOUNCE": "yes"}
    settings |= {"CORS_ORIGINS": f"{ORIGIN},http://localhost:3000"}
    with servers.running("prod", SECRET_KEY=KEY, **settings) as server:
        yield server


def asked(server: Server, path: str, token: str = "", **headers: str) -> int:
    """The status for this token alone."""
    return server.ask(path, headers={"X-Api-Token": token, **headers}).status


def test_prediction_needs_a_token(prod: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()

    refused = prod.ask("/v1/detect", image, {**IMAGE, "X-Api-Token": ""})

    assert (refused.status, refused.json["code"]) == (401, "token_missing")
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="cask"'
    assert prod.ask("/v1/detect", image, IMAGE).status == 200
    bearer = {**IMAGE, "X-Api-Token": "", "Authorization": f"Bearer {prod.token}"}
    assert prod.ask("/v1/detect", image, bearer).status == 200


def test_revoked_token_is_refused_by_every_process_within_a_second(prod: Server) -> None:
    token = servers.make_token(prod.state_dir, "to-revoke")

    def statuses() -> set[int]:
        with ThreadPoolExecutor(16) as pool:
            return set(pool.map(lambda _: asked(prod, "/v1/models", token), range(64)))

    assert statuses() == {200}
    environ = servers.environment("prod", STATE_DIR=str(prod.state_dir))
    command = [sys.executable, "-m", "app.cli", "token", "revoke", "to-revoke"]
    subprocess.run(command, cwd=servers.ROOT, env=environ, check=True, capture_output=True)
    time.sleep(1)  # the promise itself

    assert statuses() == {401}


def test_service_may_write_the_file_that_an_operator_made(prod: Server) -> None:
    prod.ask("/v1/models")

    owners = {path.stat().st_uid for path in prod.state_dir.glob("tokens.sqlite3*")}
    assert owners == {prod.state_dir.stat().st_uid}
    environ = servers.environment("prod", STATE_DIR=str(prod.state_dir))
    command = [sys.executable, "-m", "app.cli", "token", "list", "--json"]
    done = subprocess.run(command, cwd=servers.ROOT, env=environ, check=True, capture_output=True)
    (row,) = [row for row in json.loads(done.stdout) if row["name"] == "tests"]
    assert row["last_used"] is not None


def test_first_start_says_that_nobody_has_a_token() -> None:
    state_dir = servers.make_state_dir()
    done = subprocess.run(
        [servers.ROOT / "apache" / "serve.sh", "--check"],
        cwd=servers.ROOT,
        env=servers.environment("prod", SECRET_KEY=KEY, STATE_DIR=str(state_dir), PORT=str(servers.free_port())),
        capture_output=True,
        text=True,
        check=True,
    )

    assert "nobody has a token yet" in done.stderr
    assert "flask token create NAME" in done.stderr


def test_start_tries_a_prediction_although_tokens_are_asked_for(prod: Server) -> None:
    servers.wait_until(lambda: "Cask answers at" in prod.log(), 60, "the announcement")

    assert "found" in prod.log().partition("Cask answers at")[2].splitlines()[0]
    assert "Nobody has a token yet" not in prod.log()


def test_make_smoke_makes_itself_a_token(prod: Server) -> None:
    given = {"PORT": str(prod.port), "STATE_DIR": str(prod.state_dir), "COMPOSE_PROJECT_NAME": f"none-{os.getpid()}"}
    done = subprocess.run(
        [servers.ROOT / "docker" / "steps" / "smoke.sh"],
        cwd=servers.ROOT,
        env=servers.environment("prod", **given),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, "samples right" in done.stdout) == (0, True), done.stdout + done.stderr


def test_operators_addresses_want_the_scope_and_no_unknown_proxy(prod: Server) -> None:
    predict = servers.make_token(prod.state_dir, "predict-only", "predict")

    assert prod.ask("/status").status == 200
    assert asked(prod, "/status") == 401
    assert asked(prod, "/status", predict) == 403
    refused = prod.ask("/status", headers={"X-Forwarded-For": "127.0.0.1"})
    assert (refused.status, refused.json["code"], refused.json["title"]) == (403, "forbidden", "Not allowed")
    assert prod.ask("/readyz", headers={"X-Forwarded-For": "127.0.0.1", "X-Api-Token": ""}).json == {"ready": True}
    assert "processes" in prod.ask("/readyz").json
    # Under the name by which Kamal and ONCE ask, whatever host they say.
    stranger = {"Host": "0123456789ab", "X-Forwarded-For": "127.0.0.1", "X-Api-Token": ""}
    assert prod.ask("/up", headers=stranger).json == {"ready": True}


def test_predict_needs_no_token_of_those_who_may_write_the_state(prod: Server, sample_path: Path) -> None:
    def predict(*options: str, **given: str) -> subprocess.CompletedProcess[str]:
        environ = servers.environment("prod", PORT=str(prod.port), STATE_DIR=str(prod.state_dir), **given)
        command = [sys.executable, "-m", "app.cli", "predict", str(sample_path), *options]
        return subprocess.run(command, cwd=servers.ROOT, env=environ, capture_output=True, text=True, check=False)

    done, wrong, refused = predict(), predict("--token", "cask_0"), predict(AUTHENTICATION="off")

    assert (done.returncode, done.stderr) == (0, "")
    assert (wrong.returncode, refused.returncode) == (1, 1)
    assert refused.stderr.startswith("FAIL: token_missing: ")
    assert wrong.stderr.startswith("FAIL: token_invalid: ")


# ── pages of other origins ───────────────────────────────────────────────────────────────────────────────────────────


def allowed(answer: Answer) -> list[str]:
    return list(answer.headers.get_all("Access-Control-Allow-Origin") or [])


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models", 200), ("/livez", 200), ("/static/favicon.svg", 200), ("/static/nothing", 404), ("/nothing", 404)],
)
def test_every_answer_says_it_once(prod: Server, path: str, status: int) -> None:
    answer = prod.ask(path, headers={"Origin": ORIGIN})

    assert (answer.status, allowed(answer)) == (status, [ORIGIN])
    assert len(answer.headers.get_all("Access-Control-Expose-Headers")) == 1
    assert "Origin" in ", ".join(answer.headers.get_all("Vary"))
    assert allowed(prod.ask(path, headers={"Origin": "https://evil.example"})) == []


def test_refusals_of_the_app_and_of_apache_can_be_read(prod: Server) -> None:
    refused = prod.ask("/v1/models", headers={"Origin": ORIGIN, "X-Api-Token": ""})
    outside = prod.ask("/status", headers={"Origin": ORIGIN, "X-Forwarded-For": "203.0.113.1"})

    assert (refused.status, allowed(refused)) == (401, [ORIGIN])
    assert (outside.status, allowed(outside)) == (403, [ORIGIN])


def test_browser_that_asks_first_is_told(prod: Server) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "X-Api-Token": ""}
    for path in ("/v1/detect", "/v1/models", "/livez", "/v2/repository/index"):
        answer = prod.options(path, headers)

        assert (answer.status, allowed(answer)) == (200, [ORIGIN]), path
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "X-Api-Token" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Methods" not in prod.options("/v1/detect", {"Origin": "https://evil.example"}).headers


# ── documented programs ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "block",
    [block for block in test_documented_commands.BLOCKS if block.language in ("python", "js")],
    ids=lambda block: block.place,
)
def test_documented_programs_work_with_a_token(
    prod: Server, block: test_documented_commands.Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASK_TOKEN", prod.token)

    assert test_documented_commands.run(block, prod.url).strip()
