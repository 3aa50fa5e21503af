"""Who may ask a whole application of others, how often and with how much: refused before it hears of it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Answer, Server

PATIENCE_SECONDS = 60.0
MANIFEST = 'name = "{name}"\nversion = "1"\ncask = ">=1"\n[wsgi]\napplication = "{name}:app"\nmount = "/{name}"\n'
# Counts what reaches it, in a file.
COUNTING = """
import os
def app(environ, start_response):
    with open(os.environ["SEEN"], "a") as seen:
        seen.write("x")
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d %s" % (len(body), environ.get("HTTP_X_API_TOKEN", "none").encode()[:5])]
"""
GUARDED = {
    "vault": 'scope = "admin"\nmax_body_bytes = 1000\n',
    "shop": 'scope = "any"\nlimit = "5 per hour"\n',
    "open": 'limit = "3 per hour"\n',
    "free": "",
}


@pytest.fixture(scope="module")
def server(open_folder: Path) -> Iterator[Server]:
    folder = open_folder / "plugins"
    for name, lines in GUARDED.items():
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}.py").write_text(COUNTING)
        variables = '[wsgi.variables]\nSEEN = "{state}/seen"\n'
        (folder / name / "plugin.toml").write_text(MANIFEST.format(name=name) + lines + variables)
    settings = {
        "PLUGINS_DIR": str(folder),
        "PLUGINS_ON_ERROR": "stop",
        "AUTHENTICATION": "required",
        "MODELS": "site-safety-classifier",
    }
    with servers.running("test", **settings) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(server: Server) -> dict[str, str]:
    made = {scope: servers.make_token(server.state_dir, f"only-{scope}", scope) for scope in ("predict", "admin")}
    # A new token is known within half a second.
    servers.wait_until(lambda: ask(server, "vault", made["predict"]).status == 403, PATIENCE_SECONDS, "the tokens")
    return made


def ask(server: Server, name: str, token: str = "", body: bytes | None = None, **headers: str) -> Answer:
    return server.ask(f"/{name}/", body, {"X-Api-Token": token, **headers}, timeout=PATIENCE_SECONDS)


def seen(server: Server, name: str) -> int:
    path = server.state_dir / "plugins" / name / "seen"
    return len(path.read_text()) if path.exists() else 0


def test_only_a_token_with_the_scope_reaches_it(server: Server, tokens: dict[str, str]) -> None:
    bare, wrong, narrow = ask(server, "vault"), ask(server, "vault", "cask_x"), ask(server, "vault", tokens["predict"])

    assert [(each.status, each.json["code"]) for each in (bare, wrong, narrow)] == [
        (401, "token_missing"),
        (401, "token_invalid"),
        (403, "scope_missing"),
    ]
    assert bare.headers["Content-Type"] == "application/problem+json"
    assert bare.headers["WWW-Authenticate"].startswith("Bearer")
    assert bare.json["request_id"] == bare.headers["X-Request-Id"]
    assert seen(server, "vault") == 0
    assert ask(server, "vault", tokens["admin"]).body == b"0 cask_"
    assert ask(server, "vault", "", Authorization=f"Bearer {tokens['admin']}").status == 200
    assert seen(server, "vault") == 2
    assert ask(server, "vault", tokens["admin"], b"x" * 1001).status == 413
    assert seen(server, "vault") == 2


def test_person_is_led_to_the_way_in_and_back(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", "/vault/a?b=1", headers={"Accept": "text/html"})
        answer = connection.getresponse()

    assert answer.status == 303
    assert answer.headers["Location"] == "/sign-in?next=/vault/a?b%3D1"


def test_caller_beyond_the_limit_is_refused_and_others_are_not(server: Server, tokens: dict[str, str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(server, "shop", tokens["predict"]), range(9)))

    refused = [each for each in answers if each.status == 429]
    assert (len(refused), seen(server, "shop")) == (4, 5)
    assert refused[0].json["code"] == "rate_limited"
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert refused[0].headers["RateLimit-Policy"] == "5;w=3600"
    assert ask(server, "shop", tokens["admin"]).status == 200
    # Without a token an address is counted, and nobody is asked for one.
    assert [ask(server, "open").status for _ in range(4)] == [200, 200, 200, 429]
    assert [ask(server, "free").status for _ in range(6)] == [200] * 6


def test_who_decides_is_replaced_and_nobody_passes_meanwhile(server: Server, tokens: dict[str, str]) -> None:
    before = seen(server, "vault")
    for pid in server.pids("ops"):
        os.kill(pid, signal.SIGKILL)

    bare, shown = ask(server, "vault"), ask(server, "vault", tokens["admin"])

    assert bare.status in (401, 503)
    assert shown.status in (200, 503)
    servers.wait_until(lambda: ask(server, "vault", tokens["admin"]).status == 200, PATIENCE_SECONDS, "who decides")
    assert ask(server, "vault").status == 401
    assert seen(server, "vault") == before + (2 if shown.status == 200 else 1)
