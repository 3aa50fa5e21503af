"""SECRET_KEY is changed in three steps under people who are signed in: nobody has to sign in again before the last."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections import Counter
from pathlib import Path

from tests import servers
from tests.servers import Server

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PEOPLE = 3


def sign_in(server: Server) -> str:
    """The cookie of a new session; empty where none was given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/sign-in", urllib.parse.urlencode({"token": server.token}), FORM)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return (answer.headers["Set-Cookie"] or "").partition(";")[0]


def status(server: Server, cookie: str) -> int:
    """Of a page that only people who are signed in see; 303 leads all others to the form."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/models", headers={"Cookie": cookie, "Accept": "text/html"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def step(server: Server, folder: Path, number: int) -> None:
    environment = servers.environment(
        "prod", SECRETS_DIR=str(folder), ROTATE=str(number), SERVICE_USER=servers.service_user()
    )
    subprocess.run([servers.ROOT / "docker/steps/secrets.sh"], env=environment, check=True, capture_output=True)
    given = {"PORT": str(server.port), "STATE_DIR": str(server.state_dir), "SECRETS_DIR": str(folder)}
    environment = servers.environment("test", AUTHENTICATION="required", **given)
    command = [sys.executable, str(servers.ROOT / "apache" / "reload.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr


def test_nobody_is_signed_out_by_a_change_of_the_key() -> None:
    folder = servers.make_state_dir()
    environment = servers.environment("prod", SECRETS_DIR=str(folder), SERVICE_USER=servers.service_user())
    subprocess.run([servers.ROOT / "docker/steps/secrets.sh"], env=environment, check=True, capture_output=True)
    seen, is_over = Counter[str](), threading.Event()
    settings = {"AUTHENTICATION": "required", "WEB_PROCESSES": "2", "SECRETS_DIR": str(folder)}
    with servers.running("test", REQUEST_MAX_WAIT_SECONDS="60", **settings) as server:
        first = sign_in(server)

        def come_and_go() -> None:
            """Somebody who has been here since the start, and somebody who has just come."""
            newest = sign_in(server)
            while not is_over.is_set():
                try:
                    seen[f"old {status(server, first)}"] += 1
                    seen[f"new {status(server, newest)}"] += 1
                    newest = sign_in(server)
                except OSError as error:
                    seen[repr(error)] += 1

        people = [threading.Thread(target=come_and_go, daemon=True) for _ in range(PEOPLE)]
        for each in people:
            each.start()
        step(server, folder, 1)
        step(server, folder, 2)
        # With the new key alone the first session is worth nothing: the steps did change it.
        is_over.set()
        for each in people:
            each.join(60)
        assert set(seen) == {"old 200", "new 200"}, seen
        newest = sign_in(server)
        step(server, folder, 3)
        assert status(server, newest) == 200
        assert status(server, first) == 303
        print(f"{seen.total()} requests with sessions, none was sent to the form")
    shutil.rmtree(folder, ignore_errors=True)
