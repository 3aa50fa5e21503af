"""Twenty deploys under load, and ten power cuts in the midst of one: ``make deploy-under-load``.

    python -m tests.system.deploys [--deploys 20] [--cuts 10]

Callers that close and callers that keep their connection predict all the while, from outside. Five deploys cannot
work (a bad setting, a taken port, a key that nobody can read, a model that does not load, a plugin with a syntax
error) and two go back. Every other power cut comes in the seconds of the switch, every third during a deploy that
cannot work. Ends with status 1 where a request fails, where no answer arrives for half a second, and where another
release than this one serves after a power cut: before the switch the old one, after the verified switch the new one,
between these two whichever the link named when the power went.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import ROOT, free_port, wait_until
from tests.system import containers
from tests.system.callers import Callers, asking
from tests.system.containers import IMAGE, STEPS, Stack

MOST_GAP_SECONDS = 0.5
BACK_SECONDS = 240.0
# Words of a deploy: all is right and the link is about to be replaced; the new one has answered through the edge and
# the old one stands by.
SWITCHES = "it is ready and right"
SERVES = "  ready  "
SWITCH_SECONDS = 4.0
# Before the first deploy, for the gap that this machine makes by itself.
UNTOUCHED_SECONDS = 10.0
# After so many deploys one goes back.
ROLLBACKS = (7, 15)
BROKEN_PLUGIN = """mkdir -p plugins/broken && cd plugins/broken && echo 'def broken(:' >__init__.py
printf 'name = "broken"\\nversion = "1.0"\\ncask = ">=1,<2"\\n' >plugin.toml"""
CUT_WEIGHTS = "rm -rf models/*/*/built; for each in models/*/*/weights.safetensors; do truncate -s 1000 $each; done"


@dataclass
class Outcome:
    """What was seen: lines that say what went wrong, none where all is well."""

    faults: list[str] = field(default_factory=list)

    def expect(self, is_so: bool, words: str) -> None:
        """Keep the words where it is not so."""
        if not is_so:
            print(f"  FAULT: {words}", flush=True)
            self.faults.append(words)


def step(stack: Stack, name: str, **settings: str) -> tuple[int, str]:
    """Run one; its status and the last line that says something."""
    done = subprocess.run(
        [STEPS / f"{name}.sh"],
        cwd=ROOT,
        env={**containers.environment(), **stack.settings(), "BUILD": "no", **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = [line for line in (done.stderr if done.returncode else done.stdout).splitlines() if line.strip()]
    fails = [line for line in said if line.startswith("FAIL:")]
    return done.returncode, (fails or said or [""])[0 if fails else -1]


def changed_image(name: str, command: str, image: str = IMAGE) -> str:
    """The image of this tree after a shell's words as root, by its new name."""
    made = containers.docker("run", "-d", "--user", "0:0", image, "sh", "-c", command)
    assert containers.docker("wait", made) == "0", containers.docker("logs", made)
    changes = (
        "--change",
        "USER 10001:10001",
        "--change",
        "ENTRYPOINT []",
        "--change",
        'CMD ["bash","apache/serve.sh"]',
    )
    containers.docker("commit", *changes, made, name)
    containers.docker("rm", made)
    return name


def failing(folder: Path, taken: int, images: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Each kind of deploy that cannot work, and the settings that make it one."""
    missing = str(folder / "no-such.key")
    key = {"HTTPS_PORT": str(free_port()), "TLS_CERTIFICATE": missing, "TLS_KEY": missing}
    return [
        ("a bad setting", {"WEB_THREADS": "many"}),
        ("a taken port", {"PORT": str(taken)}),
        ("a key that nobody can read", key),
        ("a model that does not load", {"CASK_IMAGE": images["model"], "DOCTOR": "no", "WAIT_SECONDS": "40"}),
        ("a plugin with a syntax error", {"CASK_IMAGE": images["plugin"]}),
    ]


def during(callers: Callers, began: float) -> str:
    """How long an action took, its longest gap and when that began, and how busy the machine was."""
    ended = time.monotonic()
    gap, since = callers.longest_gap(began, ended)
    return f"{ended - began:5.1f} s  gap {gap:.2f} s after {since - began:4.1f} s  load {os.getloadavg()[0]:4.1f}"


@contextlib.contextmanager
def broken_images(project: str) -> Iterator[dict[str, str]]:
    """One whose weights are cut off, one with a plugin that cannot be imported."""
    words = {"model": CUT_WEIGHTS, "plugin": BROKEN_PLUGIN}
    images = {kind: changed_image(f"{project}-{kind}:latest", command) for kind, command in words.items()}
    try:
        yield images
    finally:
        for image in images.values():
            named = containers.docker("images", "-q", image.split(":")[0]).split()
            containers.docker("rmi", "--force", *set(named), check=False)


def deploy_under_load(stack: Stack, images: dict[str, str], count: int, outcome: Outcome) -> None:
    """All deploys while callers ask; prints a line each."""
    with socket.create_server(("127.0.0.1", 0)) as taken, asking(stack) as callers:
        bad = failing(stack.folder, taken.getsockname()[1], images)
        began = time.monotonic()
        time.sleep(UNTOUCHED_SECONDS)
        print(f"      {'nothing, to compare':<29} status 0  {during(callers, began)}", flush=True)
        every = max(1, count // len(bad))
        for number in range(1, count + 1):
            before = stack.named("current")
            name, settings = (
                bad.pop(0) if number % every == 0 and bad else ("a setting", {"JOBS_MAX_IMAGES": str(number)})
            )
            began = time.monotonic()
            status, said = step(stack, "up", **settings)
            print(
                f"  {number:>2}  {name:<29} status {status}  {during(callers, began)}  {said[:110]}",
                flush=True,
            )
            is_bad = name != "a setting"
            outcome.expect((status != 0) == is_bad, f"deploy {number} ({name}) ended with {status}: {said}")
            outcome.expect(
                (stack.named("current") == before) == is_bad, f"deploy {number} ({name}): the wrong one serves"
            )
            if number in ROLLBACKS:
                began = time.monotonic()
                status, said = step(stack, "rollback")
                print(f"      {'rollback':<29} status {status}  {during(callers, began)}  {said[:110]}", flush=True)
                outcome.expect(status == 0, f"rollback after deploy {number}: {said}")
    print(f"  {callers.describe()}")
    outcome.expect(not callers.lost, f"requests failed: {dict(callers.lost)}")
    outcome.expect(callers.gap_seconds <= MOST_GAP_SECONDS, f"no answer for {callers.gap_seconds:.2f} s")


def cut_power(stack: Stack, number: int, images: dict[str, str], outcome: Outcome) -> None:
    """Begin a deploy, kill -9 it and every process of the project, and judge what serves afterwards."""
    before, is_bad = stack.named("current"), number % 3 == 0
    settings = {"CASK_IMAGE": images["model"], "DOCTOR": "no", "WAIT_SECONDS": "40"} if is_bad else {}
    said, named, killed = cut_off_deploy(stack, number, settings)
    began = time.monotonic()
    # Nobody who was killed may pass for one who came back.
    wait_until(lambda: killed.isdisjoint(pids(stack)) and stack.is_ready(), BACK_SECONDS, "an answer after the cut")
    took = time.monotonic() - began
    containers.assert_right(stack.ask("/v1/detect", containers.sample()[0]))
    answered = stack.ask("/livez").headers.get("X-Cask-Release", "")
    phase = "before the switch" if SWITCHES not in said else "after it" if SERVES in said else "at the switch"
    kind = "a model that does not load" if is_bad else "a setting"
    print(
        f"  cut {number:>2}  {kind:<26}  {phase:<17}  {before} served, {named} was named, {answered} answers "
        f"after {took:.0f} s",
        flush=True,
    )
    outcome.expect(answered == named, f"cut {number}: release {answered} answers, the link named {named}")
    outcome.expect((named == before) or (SWITCHES in said and not is_bad), f"cut {number}: {named} serves {phase}")
    outcome.expect(named != before or SERVES not in said, f"cut {number}: {named} serves {phase}")


def cut_off_deploy(stack: Stack, number: int, settings: dict[str, str]) -> tuple[str, str, set[int]]:
    """What the deploy had printed, the release that the link named when all was dead, and who was killed."""
    environ = {**containers.environment(), **stack.settings(), "BUILD": "no", "JOBS_MAX_IMAGES": str(100 + number)}
    log = stack.folder / f"cut-{number}.log"
    with log.open("w") as file:
        begun = subprocess.Popen(
            [STEPS / "up.sh"],
            cwd=ROOT,
            env={**environ, **settings},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    if number % 2 == 0 and not settings:
        wait_until(lambda: SWITCHES in log.read_text() or begun.poll() is not None, BACK_SECONDS, "the switch")
        time.sleep(random.uniform(0, SWITCH_SECONDS))  # noqa: S311
    else:
        # The moment is what is drawn; a deploy takes about so long.
        time.sleep(random.uniform(1, 25))  # noqa: S311
    with contextlib.suppress(ProcessLookupError):
        os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    killed = set(pids(stack))
    for pid in killed:
        # Not by the engine, which would take that for a stop that was asked for.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return log.read_text(), named_by_folder(stack), killed


def named_by_folder(stack: Stack) -> str:
    """The release that the edge's link names, read without the edge."""
    copied = subprocess.run(["docker", "cp", f"{stack.edge}:/edge/current", "-"], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as archive:
        return archive.getmembers()[0].linkname.split("/")[0]


def pids(stack: Stack) -> list[int]:
    """The first process of each container of the project that runs; never 0 or less, which a signal takes for many."""
    ours = [f"label=com.docker.compose.project={stack.project}", f"label=cask.project={stack.project}"]
    ids = {each for label in ours for each in containers.docker("ps", "-q", "--filter", label).split()}
    found = [int(containers.docker("inspect", "-f", "{{.State.Pid}}", each, check=False) or 0) for each in ids]
    return [pid for pid in found if pid > 0]


def main() -> int:
    """Returns 1 where something was not as promised."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--deploys", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=10)
    given = parser.parse_args()
    if reason := containers.missing_engine():
        print(f"FAIL: {reason}", file=sys.stderr)
        return 2
    outcome = Outcome()
    containers.run(STEPS / "base-image.sh")
    containers.run(STEPS / "build.sh", CASK_IMAGE=IMAGE)
    folder = Path(tempfile.mkdtemp(prefix="cask-"))
    folder.chmod(0o755)
    stack = containers.make_stack("deploys", folder)
    try:
        stack.step("up", BUILD="no")
        with broken_images(stack.project) as images:
            if given.deploys:
                deploy_under_load(stack, images, given.deploys, outcome)
            for number in range(1, given.cuts + 1):
                cut_power(stack, number, images, outcome)
        print(stack.step("history", COUNT="60"))
    finally:
        stack.step("down", VOLUMES="yes")
        shutil.rmtree(folder, ignore_errors=True)
    print(f"FAIL: {len(outcome.faults)} faults" if outcome.faults else "  all as promised")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
