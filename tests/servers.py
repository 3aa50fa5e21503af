"""Start the real thing for tests: Apache from ``apache/serve.sh`` on a free port, with a state of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests import bad_input

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 180.0
STOP_SECONDS = 60.0
PERIOD_SECONDS = 0.05
# Each process of tests begins elsewhere.
_PORTS = itertools.cycle(random.sample(range(15_000, 32_000), 17_000))


@dataclass
class Answer:
    """One HTTP answer, whole."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running service. ``process`` is Apache's first process."""

    url: str
    port: int
    state_dir: Path
    process: subprocess.Popen[bytes]
    log_path: Path
    token: str = ""  # shown with every request, unless empty

    def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, timeout: float = 30
    ) -> Answer:
        """GET, or POST when there is a body. Failures with a status are answers too."""
        shown = {"X-Api-Token": self.token} if self.token else {}
        return self._send(urllib.request.Request(self.url + path, body, {**shown, **(headers or {})}), timeout)

    def make_job(self, image: bytes, count: int) -> str:
        """Leave so many copies of an image as a job; its id."""
        body, content_type = bad_input.multipart(*[image] * count)
        taken = self.ask("/v1/jobs", body, {"Content-Type": content_type})
        assert taken.status == 202, taken.body
        job_id: str = taken.json["id"]
        assert taken.headers["Location"] == f"/v1/jobs/{job_id}"
        return job_id

    def options(self, path: str, headers: dict[str, str]) -> Answer:
        """What a browser asks before it sends a request to another origin."""
        return self._send(urllib.request.Request(self.url + path, None, headers, method="OPTIONS"), 30)

    def _send(self, request: urllib.request.Request, timeout: float) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())

    def log(self) -> str:
        """Everything that it has written so far."""
        return self.log_path.read_text(errors="replace")

    def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            return self.ask("/readyz", timeout=5).status == 200
        except OSError:
            return False

    def in_flight(self) -> int:
        """How many requests are in the web processes, by their own word: without those for health or metrics."""
        from app.telemetry import metrics, shards

        found = [each.series for each in shards.read(self.state_dir) if each.role == "web" and each.is_alive]
        name = metrics.IN_FLIGHT.name
        return int(sum(values[0] for series in found for key, values in series.items() if key.name == name))

    def engine_pid(self) -> int:
        """The engine's process, asked of /readyz."""
        rows = self.ask("/readyz").json["processes"]
        return next(row["pid"] for row in rows if row["role"] == "engine")

    def pids(self, role: str) -> list[int]:
        """The processes of one role, from /status."""
        return [row["pid"] for row in self.ask("/status").json["processes"] if row["role"] == role]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The whole machine stands still, whoever watches over the others included, as a virtual one that is paused."""
        whole = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for each in whole:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.suspend()
        try:
            yield
        finally:
            for each in whole:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.resume()

    def stop(self) -> int:
        """Let requests in flight finish, then end. Returns Apache's exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGWINCH)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)
            return self.process.wait(STOP_SECONDS)


def suspend(pid: int) -> None:
    """Stop a process, and return once each of its threads stands still: one goes on where another waits for a core."""

    def stands_still() -> bool:
        try:
            stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        except OSError:
            return False
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

    os.kill(pid, signal.SIGSTOP)
    wait_until(stands_still, 30, f"{pid} to stand still")


def resume(pid: int) -> None:
    """Let a stopped process go on; on a slow machine the supervisor may have ended it already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


# Plugins of whoever runs the tests are not what is tested.
OURS = {"CASK_ANNOUNCE": "no", "LISTEN_HOST": "127.0.0.1", "PLUGINS_DIR": "build/no-plugins"}


def service_user() -> str:
    """Who serves when the tests run as root; Apache refuses root. Empty otherwise."""
    return "www-data" if os.getuid() == 0 else ""


def free_port() -> int:
    """A port of loopback that nobody listens on, another at each call.

    Below those that the system gives to connections and to whoever asks for any: else one of these has it by the time
    that the service listens, among tests that run side by side.
    """
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return when the condition holds. Raises TimeoutError that says what was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(PERIOD_SECONDS)


@contextlib.contextmanager
def running(
    env: str = "test", *, wait: bool = True, command_prefix: Sequence[str] = (), **settings: str
) -> Iterator[Server]:
    """Serve with these settings until the block ends. Raises AssertionError with the log when it does not get ready.

    ``command_prefix`` stands before the command that starts Apache, such as ``("nice",)``.
    """
    state_dir = make_state_dir()
    port = free_port()
    try:
        # Before the first start, as an operator may do it.
        token = make_token(state_dir) if needs_token(env, settings) else ""
        with start(env, port, state_dir, command_prefix=command_prefix, **settings) as server:
            server.token = token
            if wait:
                wait_ready(server)
            yield server
    finally:
        shutil.rmtree(state_dir, ignore_errors=True)


def needs_token(env: str, settings: dict[str, str]) -> bool:
    """Whether a service of these settings asks for tokens."""
    default = "required" if env in ("staging", "prod") else "off"
    return settings.get("AUTHENTICATION", default) == "required"


def make_token(state_dir: Path, name: str = "tests", *scopes: str) -> str:
    """A token for this service, with all scopes unless told which."""
    # Only here: tests of containers import nothing of the app.
    from app.auth.tokens import SCOPES, TokenStore

    store = TokenStore(state_dir)
    try:
        return store.create(name, scopes or SCOPES)[1]
    finally:
        store.close()


@contextlib.contextmanager
def own_certificates() -> Iterator[Path]:
    """A folder with what ``make certs`` makes: ``certificate.pem`` for localhost, ``key.pem``, ``authority.pem``."""
    folder = make_state_dir()
    given = {"CERTS_DIR": str(folder / "tls"), "SERVICE_USER": service_user()}
    command = [ROOT / "apache" / "make_certificates.sh"]
    subprocess.run(command, env=environment("dev", **given), check=True, capture_output=True)
    try:
        yield folder / "tls"
    finally:
        shutil.rmtree(folder)


def make_state_dir() -> Path:
    """A short path that the service user may enter; pytest's own folders are closed to others, and too long."""
    path = Path(tempfile.mkdtemp(prefix="cask-"))
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def start(
    env: str, port: int, state_dir: Path, *, command_prefix: Sequence[str] = (), **settings: str
) -> Iterator[Server]:
    """Start Apache on a port with a state folder, and stop it at the end."""
    log_path = state_dir / "server.log"
    # To append: Apache opens the same file again, and with two offsets lines would overwrite each other.
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*command_prefix, ROOT / "apache" / "serve.sh"],
            cwd=ROOT,
            env=environment(env, PORT=str(port), STATE_DIR=str(state_dir), **settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{port}", port, state_dir, process, log_path)
    try:
        yield server
    finally:
        server.stop()


def environment(env: str, **settings: str) -> dict[str, str]:
    """This process's environment without settings of its own, and with these."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SERVICE_USER") if name in os.environ}
    return {**kept, "ENV": env, **OURS, **settings}


def wait_ready(server: Server) -> None:
    """Raises AssertionError with the log when it ends, or does not get ready."""
    try:
        wait_until(lambda: server.process.poll() is not None or server.is_ready(), START_SECONDS, "/readyz")
    except TimeoutError as error:
        raise AssertionError(f"{error}; it logged:\n{server.log()}") from None
    assert server.process.poll() is None, f"it ended with {server.process.returncode}:\n{server.log()}"
