"""From a bare machine without a network to right answers by one command; upgrade by a difference, way back, removal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.system import bare_machines, containers
from tests.system.bare_machines import Machine
from tests.system.containers import IMAGE, STEPS

INSTALL = "/opt/cask/install.sh"
FIRST = "/root/first.tar"
# Of two cores that do nothing else it took 40 s; a busy machine has other things to do.
FIRST_ANSWER_SECONDS = 360.0
MOST_DIFFERENCE_BYTES = 10e6
# A release after this one: other code, another revision; what the Dockerfile's last steps would make.
NEWER = f"""
FROM {IMAGE}
USER root
RUN echo '# newer' >>/app/app/__init__.py && sed -i 's/"revision": "[^"]*"/"revision": "newer"/' /app/build-info.json
USER 10001:10001
LABEL org.opencontainers.image.revision=newer
"""


def make_bundle(folder: Path, **settings: str) -> Path:
    """Its file."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    given = {"BUILD": "no", "BUNDLE_KEY": str(folder / "key"), "OUT": str(out), "ZSTD_LEVEL": "3", **settings}
    print(containers.run(STEPS / "bundle.sh", **given))
    return next(out.glob("cask-*.tar"))


@pytest.fixture(scope="module")
def bundles(image: str) -> Iterator[tuple[Path, Path]]:
    """One of this image, and the difference to a newer one."""
    if reason := bare_machines.missing():
        pytest.skip(f"left out: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="cask-bundle-", dir=bare_machines.PLACE))
    newer = f"cask-system-test-newer-{os.getpid()}:latest"
    try:
        whole = make_bundle(folder, CASK_IMAGE=image).rename(folder / "first.tar")
        command = ["docker", "build", "--quiet", "--tag", newer, "-"]
        subprocess.run(command, input=NEWER, text=True, check=True, timeout=600, env=containers.environment())
        difference = make_bundle(folder, CASK_IMAGE=newer, SINCE=str(whole)).rename(folder / "newer.tar")
        yield whole, difference
    finally:
        repository = newer.split(":")[0]
        names = containers.docker("images", "--format", "{{.Repository}}:{{.Tag}}", repository, check=False).split()
        if names:
            containers.docker("rmi", *names, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def machine(bundles: tuple[Path, Path]) -> Iterator[Machine]:
    with bare_machines.running(bundles[0].parent) as machine:
        home = machine.root / "root"
        for bundle in bundles:
            os.link(bundle, home / bundle.name)
        shutil.copy(bundles[0].parent / "key.pub", home)
        shutil.copy(bundles[0].parent / "out" / "install.sh", home)
        yield machine


def revision(machine: Machine, token: str) -> str:
    return str(machine.ask("/version", token).json["revision"])


def setting(machine: Machine, name: str) -> str:
    return machine.run("/opt/cask/cask", "shell", f"COMMAND=flask config get {name}").strip()


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


def test_changed_byte_and_missing_base_are_refused_on_the_bare_machine(
    machine: Machine, bundles: tuple[Path, Path]
) -> None:
    whole, _ = bundles
    place = whole.stat().st_size // 2
    flip(whole, place)
    said = machine.run("bash", "/root/install.sh", FIRST, "--key", "/root/key.pub", "--engine", "--yes", check=False)
    flip(whole, place)

    assert "FAIL: needs every byte" in said
    assert not (machine.root / "opt" / "cask").exists()
    assert "no docker" in machine.run("sh", "-c", "command -v docker || echo no docker")


def test_bare_machine_answers_right_by_one_command(machine: Machine) -> None:
    began = time.monotonic()
    said = machine.run("bash", "/root/install.sh", FIRST, "--key", "/root/key.pub", "--engine", "--yes")
    seconds = time.monotonic() - began

    print(f"{said}\nFrom the bundle to right answers: {seconds:.0f} s")
    assert "6 of 6 samples right" in said
    assert seconds < FIRST_ANSWER_SECONDS
    assert "unchanged" in machine.run("bash", INSTALL, FIRST, "--yes")


def test_second_prefix_does_not_take_the_first_ones_place(machine: Machine) -> None:
    second = ("bash", "/root/install.sh", FIRST, "--key", "/root/key.pub", "--prefix", "/opt/second", "--yes")

    assert "a service «cask» has its state here" in machine.run(*second, check=False)
    assert not (machine.root / "opt" / "second").exists()


def test_upgrade_by_a_difference_keeps_tokens_and_jobs_and_goes_back(
    machine: Machine, bundles: tuple[Path, Path]
) -> None:
    made = "COMMAND=flask token create kept --scope predict --scope admin --json"
    token = json.loads(machine.run("/opt/cask/cask", "shell", made))["token"]
    before = revision(machine, token)
    body, _ = containers.sample()
    job = machine.ask("/v1/jobs", token, body).json["id"]

    # As an editor on Windows leaves it.
    (machine.root / "opt/cask/local.env").write_bytes(b"\xef\xbb\xbfJOBS_MAX_IMAGES=66\r\nLOG_LEVEL=warning\r\n")

    said = machine.run("bash", INSTALL, "/root/newer.tar", "--yes", "--env", "staging", "--set", "JOBS_MAX_IMAGES=77")

    assert "6 of 6 samples right" in said
    assert "prod becomes staging; tokens, jobs, secrets and local.env stay" in said
    assert setting(machine, "ENV") == "staging"
    assert setting(machine, "JOBS_MAX_IMAGES") == "77"
    assert setting(machine, "LOG_LEVEL") == "warning"
    # What the release before wrote was saved before this one used it.
    assert "-release-" in machine.run("/opt/cask/cask", "shell", "COMMAND=ls /var/lib/cask/backups")
    assert "new setting" not in said
    assert "setting HSTS_SECONDS is 3600, was 31536000" in said
    assert "pkg:pypi/flask@" in (machine.root / "opt/cask/current/sbom.cdx.json").read_text()
    assert revision(machine, token) == "newer"
    assert bundles[1].stat().st_size < MOST_DIFFERENCE_BYTES
    assert machine.ask("/v1/detect", token, body).status == 200
    assert machine.ask(f"/v1/jobs/{job}", token).json["id"] == job

    machine.run("bash", INSTALL, "--rollback")

    assert revision(machine, token) == before
    # What the next command of this site takes, too.
    assert setting(machine, "ENV") == "prod"
    assert "ENV=prod" in (machine.root / "opt/cask/site.conf").read_text()
    assert setting(machine, "JOBS_MAX_IMAGES") != "77"
    assert machine.ask(f"/v1/jobs/{job}", token).json["id"] == job


def test_removal_keeps_the_state_and_an_install_finds_it(machine: Machine) -> None:
    tokens = machine.run("/opt/cask/cask", "shell", "COMMAND=flask token list --json")

    machine.run("bash", INSTALL, "--uninstall")

    assert not (machine.root / "opt" / "cask" / "releases").exists()
    machine.run("bash", INSTALL, FIRST, "--yes")
    assert machine.run("/opt/cask/cask", "shell", "COMMAND=flask token list --json") == tokens

    machine.run("bash", INSTALL, "--uninstall", "--volumes")
    assert not (machine.root / "opt" / "cask").exists()
    assert "cask" not in machine.run("docker", "volume", "ls", "-q")
    # Only now: before, the machine had the image.
    machine.run("sh", "-c", "docker images -q | sort -u | xargs docker rmi --force")
    refused = machine.run("bash", "/root/install.sh", "/root/newer.tar", "--key", "/root/key.pub", "--yes", check=False)
    assert "needs the image that this difference bundle was made against" in refused


@pytest.mark.parametrize(("recipe", "schema"), [("github.yml", "github-workflows"), ("gitlab.yml", "gitlab-ci")])
def test_recipe_for_pipelines_is_as_its_server_wants_it(bundles: tuple[Path, Path], recipe: str, schema: str) -> None:
    """With what `make bundle` has installed for itself."""
    checker = ROOT / "build" / "bundle-venv" / "bin" / "check-jsonschema"
    print(containers.run(checker, "--builtin-schema", f"vendor.{schema}", ROOT / "ci" / recipe))
