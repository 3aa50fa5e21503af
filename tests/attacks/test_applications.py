"""A whole application of somebody else's that misbehaves: its own callers pay, and nobody else."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from tests import servers
from tests.attacks.attack import attack
from tests.servers import Server

SECONDS = 10.0
# A process that hangs ends after its timeout × (1 + ln threads), and a thread of its own may keep it from ending.
PATIENCE_SECONDS = 150.0
CALLERS = 12
MANIFEST = (
    'name = "{name}"\nversion = "1"\ncask = ">=1"\n[wsgi]\napplication = "{name}:app"\nmount = "/{name}"\n'
    "timeout_seconds = 5\n"
)
WILD = """
import ctypes, os, sys, threading, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/crash":
        ctypes.string_at(0)
    if path == "/leave":
        os._exit(1)
    if path == "/hang":
        while True: time.sleep(1)
    if path == "/spin":
        while True: pass
    if path == "/shout":
        for _ in range(10_000): print("x" * 999, file=sys.stderr)
    if path == "/threads":
        for _ in range(20): threading.Thread(target=time.sleep, args=(1e6,)).start()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"here"]
"""
# While it is imported.
BROKEN = {
    "vanishes": "import os\nos._exit(3)\n",
    "crashes": "import ctypes\nctypes.string_at(0)\n",
    "loops": "while True: pass\n",
    "shouts": "import sys\nfor _ in range(100_000): print('x' * 999, file=sys.stderr)\napp = None\n",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = servers.make_state_dir()
    for name, code in {**BROKEN, "wild": WILD}.items():
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text(code)
        (folder / name / "plugin.toml").write_text(MANIFEST.format(name=name))
    with servers.running("test", PLUGINS_DIR=str(folder), CACHE="off") as running:
        yield running


@pytest.mark.parametrize("ways", [("crash", "leave"), ("hang", "spin"), ("shout", "threads")], ids=" ".join)
def test_application_that_misbehaves_harms_nobody_else(server: Server, ways: tuple[str, ...]) -> None:
    with attack(f"application: {', '.join(ways)}", server) as running:
        ask(server, [f"/wild/{way}" for way in ways])

    running.figures.require()
    servers.wait_until(lambda: answers(server), PATIENCE_SECONDS, "the application to answer again")


def test_applications_that_cannot_be_imported_harm_nobody_else(server: Server) -> None:
    with attack("application: imports", server) as running:
        ask(server, [f"/{name}/" for name in BROKEN])

    running.figures.require()
    assert {server.ask(f"/{name}/").status for name in BROKEN} == {503}


def answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.ask("/wild/", timeout=5).body == b"here"
    return False


def ask(server: Server, paths: list[str]) -> None:
    """Many callers, for a while; what they get is the application's business."""
    end = time.monotonic() + SECONDS

    def call(number: int) -> None:
        for path in itertools.islice(itertools.cycle(paths), number, None):
            if time.monotonic() > end:
                return
            with contextlib.suppress(OSError):
                server.ask(path, timeout=max(0.5, end - time.monotonic()))
            time.sleep(0.02)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
