"""Start and ask real containers through the steps behind `make up`; each project has its own name, port and volume."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import ROOT, Answer, Server, free_port

STEPS = ROOT / "docker" / "steps"
SAMPLES = ROOT / "models" / "samples"
IMAGE = "cask-system-test:latest"
# Answered to everybody, and before there is a container that could make a token.
HEALTH = ("/livez", "/readyz", "/startupz")
STEP_SECONDS = 1800.0
RunOnce = Callable[..., tuple[int, str, float]]
JPEG = {"Content-Type": "image/jpeg"}


def run(*command: str | Path, check: bool = True, **settings: str) -> str:
    """What a command printed, both streams. Raises AssertionError with it when the command fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment(), **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=STEP_SECONDS,
        check=False,
    )
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def docker(*arguments: str, check: bool = True) -> str:
    """What docker printed, without the newline at its end."""
    return run("docker", *arguments, check=check).strip()


def missing_engine() -> str:
    """Why no container can be started here; empty where one can."""
    if not shutil.which("docker"):
        return "there is no docker; to have it: make docker-engine"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no container engine answers; to start one: make docker-engine"
    return ""


@dataclass
class Stack:
    """One project: an edge, a container that serves, perhaps one that stands by; as `make up ENV=prod` does it."""

    project: str
    folder: Path  # its secrets, and a copy of env/ without what a developer keeps in local.env
    port: int
    token: str = ""  # made when it is first needed; a new volume needs another

    def step(self, name: str, *, check: bool = True, **settings: str) -> str:
        """Run docker/steps/<name>.sh for this project and return what it printed."""
        return run(STEPS / f"{name}.sh", check=check, **{**self.settings(), **settings})

    def settings(self) -> dict[str, str]:
        return {
            "CASK_IMAGE": IMAGE,
            "COMPOSE_PROJECT_NAME": self.project,
            "ENV": "prod",
            "ENV_DIR": str(self.folder / "env"),
            "LISTEN_HOST": "127.0.0.1",
            "PORT": str(self.port),
            "SECRETS_DIR": str(self.folder / "secrets"),
        }

    @property
    def id(self) -> str:
        """The id of the container that serves; empty where there is none."""
        ours = ("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}")
        found = docker(*ours, "--filter", "label=com.docker.compose.service=cask").split()
        if len(found) < 2:
            return "".join(found)
        return docker(*ours, "--filter", f"label=cask.release={self.named('current')}")

    @property
    def edge(self) -> str:
        """The name of the edge's container."""
        return f"{self.project}-edge"

    def named(self, link: str) -> str:
        """The number of the release that a link of the edge names; empty where it names none."""
        return docker("exec", self.edge, "sh", "-c", f"readlink /edge/{link} || true").split("/")[0]

    def inspect(self, template: str) -> Any:
        """What the engine knows about the container, by a Go template that prints JSON."""
        return json.loads(docker("inspect", "-f", template, self.id))

    def execute(self, *command: str, check: bool = True) -> str:
        """Run a command in the container, as its user."""
        return docker("exec", self.id, *command, check=check)

    @property
    def server(self) -> Server:
        """The way to ask it; there is no process of ours behind it."""
        return Server(f"http://127.0.0.1:{self.port}", self.port, self.folder, None, self.folder / "log")  # type: ignore[arg-type]

    def ask(self, path: str, body: bytes | None = None, timeout: float = 30) -> Answer:
        server = self.server
        if path not in HEALTH:
            server.token = self.token = self.token or self.make_token()
        return server.ask(path, body, JPEG if body else {}, timeout)

    def is_ready(self) -> bool:
        """Whether /readyz says so; False where nothing answers."""
        try:
            return self.ask("/readyz", timeout=5).status == 200
        except OSError:
            return False

    def make_token(self, name: str = "tests") -> str:
        """A token with all scopes, made as an operator does."""
        scopes = ("--scope", "predict", "--scope", "admin")
        made = self.execute("python", "-m", "app.cli", "token", "create", name, *scopes, "--json")
        return str(json.loads(made)["token"])

    def engine_pid(self) -> int:
        """The engine's process, numbered as inside the container."""
        return self.server.engine_pid()

    def send(self, signal: str, pid: int) -> None:
        """Send a signal to a process of the container."""
        self.execute("bash", "-c", f"kill -{signal} {pid}")

    def stop(self, seconds: int = 40) -> subprocess.Popen[bytes]:
        """Begin `docker stop`; the caller waits for it."""
        command = ["docker", "stop", "-t", str(seconds), self.id]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def logs(self) -> str:
        return docker("logs", self.id)


def make_stack(name: str, folder: Path) -> Stack:
    """A stack that is not started yet, with settings as they are in git and no one's own."""
    shutil.copytree(ROOT / "env", folder / "env", ignore=shutil.ignore_patterns("local.env"))
    (folder / "secrets").mkdir()
    return Stack(f"cask-test-{name}-{os.getpid()}", folder, free_port())


def sample() -> tuple[bytes, list[dict[str, Any]]]:
    """One image to detect in, and what is on it. Its bytes are new each time: a release answers the known ones from its
    cache, because it was tried with them before it served.
    """
    row = next(row for row in json.loads((SAMPLES / "index.json").read_text()) if row["task"] == "detect")
    image = (SAMPLES / row["file"]).read_bytes()
    comment = secrets.token_hex(8).encode()
    return image[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + image[2:], row["objects"]


def assert_right(answer: Answer) -> None:
    """The labels of the sample, as many of each as there are, give or take one object."""
    objects = sample()[1]
    assert answer.status == 200, answer.body
    found = [row["label"] for row in answer.json["results"][0]["detections"]]
    wanted = [row["label"] for row in objects]
    hits = sum(min(found.count(label), wanted.count(label)) for label in set(wanted))
    assert hits >= len(wanted) - 1, f"needs {sorted(wanted)}, found {sorted(found)}"


def environment() -> dict[str, str]:
    """This process's environment without settings: what Docker and pip need."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "DOCKER_HOST") if name in os.environ} | {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_", "CURL_"))
    }
