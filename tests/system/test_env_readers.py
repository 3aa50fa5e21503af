"""One env file, read by all programs that an operator gives it to: the same values, or a refusal that names the line.

Each file goes to the real programs: Cask, its steps, Docker, podman, Compose 1 and 2, shells. The images that it is
tried with are empty and never started.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from app import config
from app.errors import SettingsError
from tests.servers import ROOT
from tests.system import containers

IMAGE, EMPTY_TAR = "cask-env-readers-test", bytes(10240)
ALLOWED = [char for char in map(chr, range(33, 127)) if config.PLAIN_LINE.fullmatch(f"A={char}")]
# Any plugin may declare a name that begins so.
VALUES = {
    f"PLUGIN_TABLE_{number}": value
    for number, value in enumerate(
        [*ALLOWED, *(f"x{char}y" for char in ALLOWED), "", "redis://h:6379/0", "a.example,::1", "/var/lib", "==", "%41"]
    )
}
# As an editor, a script or a person may write it.
ODD = {
    "a number sign": "a#b",
    "a comment": "a #b",
    "a dollar": "a$HOME",
    "a name in braces": "${HOME}",
    "double quotes": '"a b"',
    "single quotes": "'a'",
    "a backslash": "a\\nb",
    "a space": "a b",
    "a space at the end": "a ",
    "a letter with dots": "ü",
    "a semicolon": "a;b",
    "an ampersand": "a&b",
    "a back tick": "`id`",
    "a home": "~",
    "a carriage return within": "a\rB=1",
    "a form feed": "a\fb",
    "a line end of Unicode": "a\u0085B=1",
    "a NUL": "a\0b",
}
LINES = [f"{name}={value}" for name, value in VALUES.items()]
FILES = {
    "plain": "\n".join(["# ours", *LINES, ""]).encode(),
    "without a last newline": "\n".join(LINES).encode(),
    "with the line ends of Windows": "\r\n".join(["# ours", *LINES, ""]).encode(),
    "with a mark before a comment": b"\xef\xbb\xbf" + "\n".join(["# ours", *LINES, ""]).encode(),
    "with a mark before a name": b"\xef\xbb\xbf" + "\n".join([*LINES, ""]).encode(),
}
Reader = Callable[[Path], dict[str, str]]


def ran(*command: str | Path, **options: object) -> str:
    """What it printed. Raises AssertionError with what it complained about."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def pairs(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines if "=" in line)  # type: ignore[misc]


def cask(path: Path) -> dict[str, str]:
    layer = config.read_env_file(path.parent.parent, "env/local.env")
    return dict.fromkeys(VALUES, "") | {field.upper(): reading.value for field, reading in layer.items()}


def steps(path: Path) -> dict[str, str]:
    script = '. docker/steps/common.sh; refuse_odd_lines; for name in "$@"; do echo "$name=$(setting "$name")"; done'
    environ = {"PATH": os.environ["PATH"], "ENV": "prod", "ENV_DIR": str(path.parent)}
    return pairs(ran("bash", "-c", script, "bash", *VALUES, cwd=ROOT, env=environ).splitlines())


def engine(program: str) -> Reader:
    """`PROGRAM create --env-file`: what a container of it would have in its environment."""

    def read(path: Path) -> dict[str, str]:
        subprocess.run([program, "import", "-", IMAGE], input=EMPTY_TAR, capture_output=True, check=True)
        id = ran(program, "create", "--env-file", path, IMAGE, "none").split()[-1]
        try:
            return pairs(json.loads(ran(program, "inspect", "-f", "{{json .Config.Env}}", id)))
        finally:
            ran(program, "rm", id)
            ran(program, "rmi", IMAGE)

    return read


def compose(*command: str) -> Reader:
    """`env_file` of a service, as Compose prints what it made of it."""

    def read(path: Path) -> dict[str, str]:
        file = path.with_name("compose.yaml")
        file.write_text(f"version: '3'\nservices: {{one: {{image: {IMAGE}, env_file: '{path}'}}}}\n")
        said = yaml.load(ran(*command, "-f", file, "config", cwd=path.parent), yaml.BaseLoader)  # noqa: S506 - all is text
        return {name: str(value) for name, value in said["services"]["one"]["environment"].items()}

    return read


def shell(program: str) -> Reader:
    """`set -a; . FILE`, from an empty environment."""

    def read(path: Path) -> dict[str, str]:
        command = [
            program,
            *(["sh"] if program == "busybox" else []),
            "-c",
            f"set -a; . '{path}'; exec {ENVIRONMENT} -0",
        ]
        done = subprocess.run(command, env={}, capture_output=True, check=False)
        # It goes on after a line that is no command.
        if done.stderr:
            raise SettingsError(done.stderr.decode())
        return pairs(done.stdout.decode().split("\0"))

    return read


def has_compose_2() -> bool:
    """Whether Docker has it as a plug-in."""
    docker = shutil.which("docker")
    return bool(docker) and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0


ENVIRONMENT = shutil.which("env")
READERS: dict[str, tuple[Reader, bool]] = {
    "Cask": (cask, True),
    "its steps": (steps, True),
    "docker --env-file": (engine("docker"), not containers.missing_engine()),
    "podman --env-file": (engine("podman"), bool(shutil.which("podman"))),
    "docker-compose": (compose("docker-compose"), bool(shutil.which("docker-compose"))),
    "docker compose": (compose("docker", "compose"), has_compose_2()),
    **{each: (shell(each), bool(shutil.which(each))) for each in ("dash", "bash", "busybox")},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is to lie."""
    shutil.copytree(ROOT / "env", tmp_path / "env", ignore=shutil.ignore_patterns("local.env"))
    return tmp_path / "env" / "local.env"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_sees_the_same_or_the_start_is_refused(path: Path, reader: str, file: str) -> None:
    read, is_there = READERS[reader]
    if not is_there:
        pytest.skip(f"{reader} is not installed here (docs/configuration.md names the versions tried)")
    path.write_bytes(FILES[file])

    try:
        found = {name: value for name, value in read(path).items() if "PLUGIN_TABLE_" in name}
    except SettingsError as refusal:
        assert re.search(rf"{re.escape(str(path))}: (line )?1:|1: {re.escape(str(path))}:", refusal.message)
        return

    if found != VALUES:
        with pytest.raises(SettingsError, match=r"carriage return|byte order mark"):
            config.resolve({**found, "ENV": "test"}, path.parent.parent, path.parent / "no-secrets")


@pytest.mark.parametrize("value", ODD.values(), ids=list(ODD))
def test_what_they_read_differently_is_refused_with_file_and_line(path: Path, value: str) -> None:
    path.write_bytes(f"# ours\nPLUGIN_TABLE={value}\n".encode())

    with pytest.raises(SettingsError, match=r"env/local\.env:2 "):
        cask(path)
    with pytest.raises(AssertionError, match=re.escape(f"{path}:2 ")):
        steps(path)


def test_the_odd_ones_are_read_differently(path: Path) -> None:
    """Else there would be no need to refuse them."""
    path.write_text("A='1'\nB=2 # two\n")

    literal, expanded = engine("docker")(path), shell("bash")(path)

    assert (literal["A"], expanded["A"]) == ("'1'", "1")
    assert (literal["B"], expanded["B"]) == ("2 # two", "2")
