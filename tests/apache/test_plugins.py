"""Plugins through Apache: the example as it stands, beside one with a syntax error."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bad_input, servers
from tests.servers import Answer, Server

EXAMPLES = servers.ROOT / "examples" / "plugins"
CALLERS = 12
PATIENCE_SECONDS = 60.0


# An application as it is, with inline scripts and a policy of its own.
SHOP = """
import os, pathlib
from flask import Flask, url_for, request
app = Flask(__name__)
@app.get("/")
def first():
    return f"<script>1</script>{url_for('basket', _external=True)} {os.getpid()} {pathlib.Path.cwd().name}"
@app.post("/basket")
def basket():
    return {"bytes": len(request.get_data())}, 201, {"Content-Security-Policy": "script-src 'unsafe-inline'"}
"""
# One with addresses and a method that Apache and the labels of metrics do not take as they are.
ODD = """
import sys
from flask import Blueprint, request
from cask import public
blueprint = Blueprint("odd", __name__, url_prefix='/my "space"')
@blueprint.route("/a?b/<name>", methods=["GET", "LINK"])
@public
def link(name):
    print("printed of", name, file=sys.stderr)
    return {"method": request.method, "name": name}
"""


@pytest.fixture(scope="module")
def plugins(open_folder: Path) -> Path:
    """The examples and a plugin that nobody can import."""
    folder = open_folder / "plugins"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, code in {"shop": SHOP, "ruin": "raise ImportError('ruined')\n"}.items():
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text(code)
        (folder / name / "plugin.toml").write_text(
            f'name = "{name}"\nversion = "1"\ncask = ">=1"\n[wsgi]\napplication = "{name}:app"\nmount = "/{name}"\n'
        )
    (folder / "odd").mkdir()
    (folder / "odd" / "__init__.py").write_text(ODD)
    (folder / "odd" / "plugin.toml").write_text(
        'name = "odd"\nversion = "1"\ncask = ">=1"\n[content_security_policy]\nimg-src = ["https://odd.example.org"]\n'
    )
    (folder / "broken").mkdir()
    (folder / "broken" / "plugin.toml").write_text('name = "broken"\nversion = "1"\ncask = ">=1"\n')
    (folder / "broken" / "__init__.py").write_text("import os\n\ndef view(:\n")
    return folder


@pytest.fixture(scope="module")
def server(plugins: Path) -> Iterator[Server]:
    """Nobody waits for long, and what the tests stop is no hang to it."""
    patient = {"ENGINE_HANG_SECONDS": "600", "REQUEST_TIMEOUT_SECONDS": "120", "REQUEST_MAX_WAIT_SECONDS": "0.01"}
    ours = {"PLUGINS_DIR": str(plugins), "PLUGINS_ON_ERROR": "skip", "PLUGIN_CLAIMS_ROWS": "1", "CACHE": "off"}
    with servers.running("test", AUTHENTICATION="required", **ours, **patient) as running:
        yield running


def claim(server: Server, image: bytes, token: str) -> Answer:
    body, content_type = bad_input.multipart(image, field_name="photo")
    return server.ask("/claims", body, {"Content-Type": content_type, "X-Api-Token": token})


def test_route_predicts_behind_a_token_and_a_limit_of_its_own(server: Server, sample_path: Path) -> None:
    image, token = sample_path.read_bytes(), servers.make_token(server.state_dir, "limited", "predict")

    assert claim(server, image, "").status == 401
    answers = [claim(server, image, token) for _ in range(31)]

    assert [each.status for each in answers] == [200] * 30 + [429]
    assert len(answers[0].json["damage"]) == 1
    assert answers[-1].json["code"] == "rate_limited"
    assert int(answers[-1].headers["Retry-After"]) >= 1


def test_route_is_shed_while_the_engine_has_too_much_to_do(server: Server, sample_path: Path) -> None:
    image, answers = sample_path.read_bytes(), list[Answer]()
    tokens = [servers.make_token(server.state_dir, f"shed-{number}", "predict") for number in range(CALLERS)]
    # A process that has just looked for an unknown token looks again after 0.05 s.
    servers.wait_until(lambda: claim(server, image, tokens[-1]).status == 200, PATIENCE_SECONDS, "the new tokens")

    def ask(token: str) -> None:
        answers.extend(claim(server, image, token) for _ in range(2))

    callers = [threading.Thread(target=ask, args=(token,)) for token in tokens]
    engine = server.engine_pid()
    servers.suspend(engine)
    for each in callers:
        each.start()
    try:
        servers.wait_until(lambda: any(each.status == 503 for each in answers), PATIENCE_SECONDS, "a refusal")
        page = server.ask("/claims/page")
    finally:
        servers.resume(engine)
    for each in callers:
        each.join(PATIENCE_SECONDS)

    refused = next(each for each in answers if each.status == 503)
    assert (refused.json["code"], refused.headers["Retry-After"]) == ("engine_busy", "1")
    assert {each.status for each in answers} == {200, 503}
    assert page.status == 200


def test_page_has_its_place_its_files_and_its_own_policy(server: Server) -> None:
    page, ours = server.ask("/claims/page"), server.ask("/models")
    file = server.ask("/static/plugins/claims/claims.css")
    refused = server.ask("/static/plugins/claims/claims.css", b"x")

    assert 'aria-current="page">Claims</a>' in page.body.decode()
    assert "/claims/page" in ours.body.decode()
    assert "img-src 'self' data: blob: https://images.example.org;" in page.headers["Content-Security-Policy"]
    assert "images.example.org" not in ours.headers["Content-Security-Policy"]
    assert len(page.headers.get_all("Content-Security-Policy")) == 1
    assert file.body == (EXAMPLES / "claims" / "static" / "claims.css").read_bytes()
    # By Apache: Python lets callers keep it for an hour.
    assert file.headers["Cache-Control"] == "public, no-cache"
    assert (file.headers["Content-Type"], refused.status) == ("text/css", 405)
    assert server.ask("/static/plugins/claims/").status == 404
    assert server.ask("/static/plugins/claims/%2e%2e/plugin.toml").status in (400, 403, 404)


def test_addresses_and_methods_that_apache_does_not_know_reach_the_plugin(server: Server) -> None:
    path = "/my%20%22space%22/a%3Fb"
    asked = urllib.request.Request(f"{server.url}{path}/x", method="LINK")
    with urllib.request.urlopen(asked, timeout=PATIENCE_SECONDS) as answer:
        assert (answer.read(), answer.status) == (b'{"method":"LINK","name":"x"}\n', 200)
        assert "https://odd.example.org" in answer.headers["Content-Security-Policy"]
    elsewhere = urllib.request.Request(f"{server.url}/v1/models", method="LINK")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(elsewhere, timeout=PATIENCE_SECONDS)

    assert f'route="{path}/{{name}}"' in server.ask("/metrics").body.decode()
    assert f"{path}/{{name}}" in server.ask("/openapi.json").json["paths"]
    # In the form of our lines; Apache would write an error.
    assert re.search(r"WARNING +web +printed of x", server.log())


def test_second_example_keeps_a_table_of_its_own_and_speaks_german(server: Server) -> None:
    text = "Camera 3 is dark"
    token = {"X-Api-Token": servers.make_token(server.state_dir, "notes")}
    stranger = urllib.request.Request(f"{server.url}/notes", b"text=x", {"X-Api-Token": "no such token"})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(stranger, timeout=PATIENCE_SECONDS)
    kept = server.ask("/notes", f"text={text}".encode(), token)
    page = server.ask("/notes", headers={"Accept-Language": "de"}).body.decode()

    assert kept.status == 200  # by way of 303 to the page
    assert text in page
    assert "Was sollen andere wissen?" in page
    assert (server.state_dir / "plugins" / "notes" / "notes.db").exists()
    servers.wait_until(
        lambda: 'cask_plugin_events_total{event="kept",plugin="notes"} 1.0' in server.ask("/metrics").body.decode(),
        PATIENCE_SECONDS,
        "the count",
    )


def test_application_of_others_runs_as_it_is_in_processes_of_its_own(server: Server) -> None:
    first, basket = server.ask("/shop/"), server.ask("/shop/basket", b"12345")
    missing, ruined = server.ask("/shop/nothing"), server.ask("/ruin/")

    address, pid, folder = first.body.decode().removeprefix("<script>1</script>").split()
    assert (address, folder) == (f"{server.url}/shop/basket", "shop")
    assert int(pid) not in server.pids("web") + server.pids("ops")
    # Neither our policy nor our shape of failures is forced on it.
    assert "Content-Security-Policy" not in first.headers
    assert basket.headers["Content-Security-Policy"] == "script-src 'unsafe-inline'"
    assert (basket.status, basket.json) == (201, {"bytes": 5})
    assert (missing.status, missing.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert server.ask("/shop", headers={"X-Other": "1"}).body == first.body
    # One that cannot be imported harms nobody else.
    assert (ruined.status, ruined.json["code"]) == (503, "application_failed")
    assert server.ask("/v1/models").status == 200
    assert "ImportError: ruined" in server.log()
    assert "default-src 'none'" in server.ask("/shopping").headers["Content-Security-Policy"]


def test_broken_plugin_is_named_everywhere_and_missing_nowhere_else(server: Server, plugins: Path) -> None:
    rows = {row["name"]: row for row in server.ask("/status").json["plugins"]}
    place = f"{plugins}/broken/__init__.py, line 3: SyntaxError"

    assert (rows["claims"]["state"], rows["broken"]["state"]) == ("serving", "left out")
    assert place in rows["broken"]["reason"]
    server.ask("/claims")
    metrics = server.ask("/metrics").body.decode()
    assert 'cask_plugin_up{plugin="broken"} 0.0' in metrics
    assert 'route="/claims"' in metrics
    assert place in server.log()
    assert "/claims" in server.ask("/openapi.json").json["paths"]


def test_reload_with_a_broken_plugin_touches_nothing_and_with_a_right_one_serves_it(
    server: Server, plugins: Path
) -> None:
    """A syntax error in a deploy: the old version goes on serving."""
    before = server.pids("web")

    refused = reload(server, plugins)

    assert refused.returncode == 2
    assert "broken/__init__.py, line 3: SyntaxError" in refused.stderr
    assert "Nothing was touched" in refused.stderr
    assert (server.pids("web"), server.ask("/claims/page").status) == (before, 200)

    (plugins / "broken" / "__init__.py").write_text(
        'from flask import Blueprint\nfrom cask import public\nblueprint = Blueprint("broken", __name__)\n'
        '@blueprint.get("/mended")\n@public\ndef mended():\n    return "mended"\n'
    )
    done = reload(server, plugins)

    assert done.returncode == 0, done.stderr
    assert server.ask("/mended").body == b"mended"
    assert [row["state"] for row in server.ask("/status").json["plugins"]] == [
        *("serving", "serving", "serving", "serving", "failed", "serving")
    ]
    shutil.copy(plugins / "claims" / "plugin.toml", plugins / "broken")


def reload(server: Server, plugins: Path) -> subprocess.CompletedProcess[str]:
    settings = {"PORT": str(server.port), "STATE_DIR": str(server.state_dir), "PLUGINS_DIR": str(plugins)}
    command = [sys.executable, str(servers.ROOT / "apache" / "reload.py")]
    return subprocess.run(
        command, env=servers.environment("test", **settings), capture_output=True, text=True, timeout=200, check=False
    )


def test_broken_plugin_ends_the_start_with_file_and_line(plugins: Path, open_folder: Path) -> None:
    state = open_folder / "stopped"
    state.mkdir(mode=0o777)
    state.chmod(0o777)

    with servers.start("test", servers.free_port(), state, PLUGINS_DIR=str(plugins)) as server:
        status = server.process.wait(servers.START_SECONDS)

    assert status == 2
    assert f"{plugins}/broken/plugin.toml: name is 'claims' in the folder 'broken'; expected" in server.log()
