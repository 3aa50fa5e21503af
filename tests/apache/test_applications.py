"""Whole applications of others through Apache: the example as its people wrote it, beside some that are broken."""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.plugins import libraries
from tests import bad_input, servers
from tests.servers import Answer, Server
from tests.unit.model_code.test_environments import wheel

EXAMPLES = servers.ROOT / "examples" / "applications"
ENVIRONMENT = servers.ROOT / "build" / "examples" / "ledger"
PATIENCE_SECONDS = 60.0
ORIGIN = "https://a.example"
FORM = "application/x-www-form-urlencoded"
MANIFEST = 'name = "{name}"\nversion = "1"\ncask = ">=1"\n[wsgi]\napplication = "{name}:app"\nmount = "/{name}"\n'
# What their people got wrong; each has one process.
BROKEN = {
    "raises": "import sys\nraise ImportError('no such bank')\n",
    "exits": "import sys\nsys.exit(3)\n",
    "vanishes": "import os\nos._exit(3)\n",
    "crashes": "import ctypes\nctypes.string_at(0)\n",
    "loops": "while True: pass\n",
    "nothing": "app = 5\n",
}
# One with a library that only it has.
LIBRARY = """
import importlib.util, words_for_tests
def app(environ, start_response):
    cookies = [("Set-Cookie", "__Host-a=1; Secure; Path=/"), ("Set-Cookie", "b=1; HttpOnly; path=/; Secure")]
    start_response("200 OK", [("Content-Type", "text/plain"), *cookies])
    if environ["PATH_INFO"] != "/":
        return [f"{len(environ['PATH_INFO'])} {environ.get('HTTP_AUTHORIZATION')}".encode()]
    return [words_for_tests.WORD, b" ", str(importlib.util.find_spec("flask") is None).encode()]
"""
# One as tutorials write it: made with arguments, its table in Flask's instance folder, made by a command of its own.
DIARY = """
import os, sqlite3
from flask import Flask, redirect, url_for
from werkzeug.middleware.proxy_fix import ProxyFix
def create_app(kind, *, title):
    app = Flask(__name__)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_prefix=1)
    @app.get("/place")
    def place():
        return url_for("days")
    def table():
        return sqlite3.connect(os.path.join(app.instance_path, "diary.sqlite"))
    @app.cli.command("init-db")
    def init_db():
        with table() as made:
            made.execute("CREATE TABLE days (day TEXT)")
    @app.get("/")
    def days():
        with table() as read:
            return f"{kind} {title} {read.execute('SELECT count(*) FROM days').fetchone()}"
    @app.get("/home")
    def home():
        return redirect("/")
    return app
"""
# One that says which of its versions answers.
STEADY = """
import time
def app(environ, start_response):
    time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"version {version}"]
"""


@pytest.fixture(scope="module")
def plugins(open_folder: Path) -> Path:
    if not (ENVIRONMENT / "bin" / "python").exists():
        pytest.skip(f"{ENVIRONMENT} is missing; make test makes it (requirements/examples.sh)")
    folder = open_folder / "plugins"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__", ".venv"))
    (folder / "ledger" / ".venv").symlink_to(ENVIRONMENT)
    for name, code in {**BROKEN, "diary": DIARY, "steady": STEADY.format(version=1), "library": LIBRARY}.items():
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text(code)
        (folder / name / "plugin.toml").write_text(MANIFEST.format(name=name))
    manifest = folder / "diary" / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("diary:app", "diary:create_app('my', title='diary')"))
    wheel(folder, "words_for_tests", "1.0", "WORD = b'own'\n")
    (folder / "library" / "requirements.txt").write_text(f"--no-index\n--find-links {folder}\nwords_for_tests\n")
    libraries.install(folder / "library", (), print, is_alone=True)
    return folder


@pytest.fixture(scope="module")
def server(plugins: Path) -> Iterator[Server]:
    settings = {"PLUGINS_DIR": str(plugins), "PLUGINS_ON_ERROR": "stop"}
    with servers.running("test", **settings, TRUSTED_PROXIES="127.0.0.1", CORS_ORIGINS=ORIGIN) as running:
        yield running


class Person:
    """A browser, as far as an application sees it."""

    def __init__(self, server: Server) -> None:
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        self._base = server.url

    def ask(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        request = urllib.request.Request(self._base + path, body, headers or {})
        with self._opener.open(request, timeout=PATIENCE_SECONDS) as answer:
            return Answer(answer.status, {**answer.headers, "url": answer.url}, answer.read())

    def sign_in(self, name: str) -> Answer:
        form = urllib.parse.urlencode({"name": name, "password": f"{name}'s"}).encode()
        return self.ask("/ledger/sign-in", form)


def row(server: Server, name: str) -> dict[str, str]:
    found: dict[str, str] = next(each for each in server.ask("/status").json["plugins"] if each["name"] == name)
    return found


def test_person_signs_in_uploads_and_reads(server: Server) -> None:
    person = Person(server)
    first = person.ask("/ledger/")
    # Flask-Login sends strangers to its page, below the mount.
    assert first.headers["url"] == f"{server.url}/ledger/sign-in?next=%2Fledger%2F"

    page = person.sign_in("ada")

    assert page.headers["url"] == f"{server.url}/ledger/"
    assert [(each.name, each.path) for each in person.cookies] == [("session", "/ledger")]
    assert b"<script>" in page.body
    assert "Content-Security-Policy" not in page.headers
    assert b'href="/ledger/static/ledger.css"' in page.body
    assert b"font-family" in person.ask("/ledger/static/ledger.css").body
    receipt = os.urandom(100_000)
    body, content_type = bad_input.multipart(receipt, field_name="receipt", what="paper", amount="12.50")
    added = person.ask("/ledger/expenses", body, {"Content-Type": content_type})
    link = re.search(rb'href="(/ledger/receipts/[^"]+)"', added.body)
    assert link is not None
    assert person.ask(link[1].decode()).body == receipt
    export = person.ask("/ledger/export.csv").body.decode()
    assert export.splitlines()[1].endswith(",paper,1250")
    # The thread in the background has seen it.
    servers.wait_until(
        lambda: b'data-cents="1250"' in person.ask("/ledger/").body, PATIENCE_SECONDS, "the thread's sum"
    )
    assert (server.state_dir / "plugins" / "ledger" / "ledger.db").exists()


def test_uploads_beyond_its_limit_and_bodies_within_ours_are_refused(server: Server) -> None:
    assert server.ask("/ledger/sign-in", b"x" * 1_000_001).status == 413
    assert server.ask("/steady/", b"x" * 1_000_001).status == 200


def test_it_knows_where_it_is_behind_a_proxy_with_a_path(server: Server) -> None:
    """As many an app behind a proxy does not: redirects and links without the proxy's path (flask issue 5033)."""
    behind = {"X-Forwarded-Prefix": "/office", "X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    page = server.ask("/ledger/sign-in", headers=behind)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        connection.request("POST", "/ledger/sign-in", "name=eve&password=x", {"Content-Type": FORM, **behind})
        answer = connection.getresponse()
        answer.read()

    assert b'href="/office/ledger/static/ledger.css"' in page.body
    # One that was made to be behind a proxy.
    assert server.ask("/diary/place", headers=behind).body == b"/office/diary/"
    assert answer.headers["Location"] == "/office/ledger/"
    assert "Path=/office/ledger" in answer.headers["Set-Cookie"]
    assert server.ask("/ledger").status == 200  # by way of /ledger/


def test_application_with_libraries_of_its_own_sees_none_of_ours(server: Server) -> None:
    answer = server.ask("/library/")

    assert answer.body == b"own True"
    # A browser takes __Host- cookies for the whole host or not at all.
    assert answer.headers.get_all("Set-Cookie") == [
        "__Host-a=1; Secure; Path=/",
        "b=1; HttpOnly; path=/library; Secure",
    ]


def test_application_of_a_tutorial_has_its_instance_folder_where_it_may_write(server: Server, plugins: Path) -> None:
    assert server.ask("/diary/").status == 500
    settings = {"PLUGINS_DIR": str(plugins), "STATE_DIR": str(server.state_dir)}
    command = [sys.executable, "-m", "app.cli", "plugin", "flask", "diary", "init-db"]
    done = subprocess.run(
        command, cwd=servers.ROOT, env=servers.environment("test", **settings), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr

    answer = server.ask("/diary/")

    assert (answer.status, answer.body) == (200, b"my diary (0,)")
    assert (server.state_dir / "plugins" / "diary" / "instance" / "diary.sqlite").exists()


def test_redirect_that_leaves_the_mount_is_told_once(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        for _ in range(2):
            connection.request("GET", "/diary/home")
            answer = connection.getresponse()
            answer.read()

    assert answer.headers["Location"] == "/"
    told = "plugin diary: it redirects to /, which is outside of /diary"
    servers.wait_until(lambda: server.log().count(told) == 1, PATIENCE_SECONDS, told)


def test_long_addresses_tokens_and_other_origins_are_its_own_business(server: Server) -> None:
    """Links with signed tokens are longer than names of files; CORS_ORIGINS are those of our own API."""
    answer = server.ask(f"/library/{'a' * 300}", headers={"Authorization": "Bearer x", "Origin": ORIGIN})

    assert answer.body == b"301 Bearer x"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert server.ask("/v1/models", headers={"Origin": ORIGIN}).headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize(
    ("name", "state", "words"),
    [
        ("raises", "failed", 'raises.py", line 2, in <module>'),
        ("exits", "failed", "SystemExit: 3"),
        ("vanishes", "failed", "its process ended while vanishes:app was imported"),
        ("crashes", "failed", "Fatal Python error: Segmentation fault"),
        ("loops", "loading", "it is still being imported"),
        ("nothing", "failed", "nothing:app is 5; expected a WSGI application"),
    ],
)
def test_application_that_cannot_be_imported_is_named_with_its_last_lines(
    server: Server, name: str, state: str, words: str
) -> None:
    """While one is tried again it is loading."""
    servers.wait_until(
        lambda: row(server, name)["state"] == state and words in row(server, name)["reason"],
        PATIENCE_SECONDS,
        f"{name}: {words}",
    )

    answer = server.ask(f"/{name}/", timeout=PATIENCE_SECONDS)

    assert (answer.status, answer.json["code"]) == (503, f"application_{state}")
    assert int(answer.headers["Retry-After"]) >= 1
    assert words not in answer.body.decode()
    assert f'cask_plugin_up{{plugin="{name}"}} 0.0' in server.ask("/metrics").body.decode()


def test_answers_are_counted_by_status_and_time(server: Server) -> None:
    server.ask("/ledger/nothing-there")

    def is_counted() -> bool:
        found = server.ask("/metrics").body.decode()
        wanted = ('requests_total{plugin="ledger",status="404"}', 'request_seconds_count{plugin="ledger"}')
        return all(f"cask_application_{each}" in found for each in wanted)

    servers.wait_until(is_counted, PATIENCE_SECONDS, "the count")
    assert 'cask_plugin_up{plugin="ledger"} 1.0' in server.ask("/metrics").body.decode()


def test_reload_takes_a_changed_one_without_losing_a_request_and_leaves_a_broken_one(
    server: Server, plugins: Path
) -> None:
    answers, stop = list[Answer](), threading.Event()

    def call() -> None:
        while not stop.is_set():
            answers.append(server.ask("/steady/", timeout=PATIENCE_SECONDS))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for each in callers:
        each.start()
    try:
        (plugins / "steady" / "steady.py").write_text(STEADY.format(version=2))
        done = reload(server, plugins)
        servers.wait_until(lambda: answers[-1].body == b"version 2", PATIENCE_SECONDS, "version 2")
        (plugins / "steady" / "steady.py").write_text("def app(:\n")
        refused = reload(server, plugins)
    finally:
        stop.set()
        for each in callers:
            each.join(PATIENCE_SECONDS)

    assert {each.status for each in answers} == {200}
    assert answers[0].body == b"version 1"
    assert answers[-1].body == b"version 2"
    # The others are broken, and said to be; these were replaced all the same.
    assert "steady " in done.stdout
    assert "ledger " in done.stdout
    assert "plugin raises still cannot be imported: " in done.stdout
    assert done.returncode == 0, done.stderr
    assert refused.returncode == 2
    assert "plugin steady was not reloaded, its processes serve on: " in refused.stderr
    assert "SyntaxError" in refused.stderr


def reload(server: Server, plugins: Path) -> subprocess.CompletedProcess[str]:
    # Without the one that is imported for ever: a trial of it takes a minute.
    chosen = {"PLUGINS_DIR": str(plugins), "PLUGINS": "ledger,raises,steady"}
    settings = {"PORT": str(server.port), "STATE_DIR": str(server.state_dir), **chosen}
    command = [sys.executable, str(servers.ROOT / "apache" / "reload.py")]
    return subprocess.run(
        command, env=servers.environment("test", **settings), capture_output=True, text=True, timeout=300, check=False
    )
