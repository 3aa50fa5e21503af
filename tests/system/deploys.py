"""Twenty deploys under load, and ten power cuts in the midst of one: ``make deploy-under-load``.

    python -m tests.system.deploys [--deploys 20] [--cuts 10]

Callers that close and callers that keep their connection predict all the while, from outside. Five deploys cannot
work (a bad setting, a taken port, a key that nobody can read, a model that does not load, a plugin with a syntax
error) and two go back. Ends with status 1 where a request fails, no answer arrives for half a second, or after a power
cut anything else serves than the release before or the one that was being deployed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import ROOT, free_port, wait_until
from tests.system import containers
from tests.system.callers import asking
from tests.system.containers import IMAGE, STEPS, Stack

MOST_GAP_SECONDS = 0.5
BACK_SECONDS = 240.0
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
        ("a model that does not load", {"CASK_IMAGE": images["model"], "WAIT_SECONDS": "40"}),
        ("a plugin with a syntax error", {"CASK_IMAGE": images["plugin"]}),
    ]


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


def deploy_under_load(stack: Stack, folder: Path, count: int, outcome: Outcome) -> None:
    """All deploys while callers ask; prints a line each."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        broken_images(stack.project) as images,
        asking(stack) as callers,
    ):
        bad = failing(folder, taken.getsockname()[1], images)
        every = max(1, count // len(bad))
        for number in range(1, count + 1):
            before = stack.named("current")
            name, settings = (
                bad.pop(0) if number % every == 0 and bad else ("a setting", {"JOBS_MAX_IMAGES": str(number)})
            )
            began = time.monotonic()
            status, said = step(stack, "up", **settings)
            took = time.monotonic() - began
            print(f"  {number:>2}  {name:<29} status {status}  {took:5.1f} s  {said[:110]}", flush=True)
            is_bad = name != "a setting"
            outcome.expect((status != 0) == is_bad, f"deploy {number} ({name}) ended with {status}: {said}")
            outcome.expect(
                (stack.named("current") == before) == is_bad, f"deploy {number} ({name}): the wrong one serves"
            )
            if number in ROLLBACKS:
                status, said = step(stack, "rollback")
                print(f"      rollback                      status {status}  {said[:110]}", flush=True)
                outcome.expect(status == 0, f"rollback after deploy {number}: {said}")
    print(f"  {callers.describe()}")
    outcome.expect(not callers.lost, f"requests failed: {dict(callers.lost)}")
    outcome.expect(callers.gap_seconds <= MOST_GAP_SECONDS, f"no answer for {callers.gap_seconds:.2f} s")


def cut_power(stack: Stack, number: int, outcome: Outcome) -> None:
    """Begin a deploy and kill -9 it and every process of the project at a random moment."""
    before = stack.named("current")
    environ = {**containers.environment(), **stack.settings(), "BUILD": "no", "JOBS_MAX_IMAGES": str(100 + number)}
    begun = subprocess.Popen(
        [STEPS / "up.sh"],
        cwd=ROOT,
        env=environ,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # The moment is what is drawn; a deploy takes about so long.
    time.sleep(random.uniform(1, 25))  # noqa: S311
    with contextlib.suppress(ProcessLookupError):
        os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    for pid in pids(stack):
        # Not by the engine, which would take that for a stop that was asked for.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    wait_until(stack.is_ready, BACK_SECONDS, "an answer after the power cut")
    containers.assert_right(stack.ask("/v1/detect", containers.sample()[0]))
    took = time.monotonic() - began
    serving = stack.named("current")
    print(f"  cut {number:>2}: release {serving} serves after {took:.0f} s (before: {before})", flush=True)
    outcome.expect(serving in (before, str(int(before) + 1)) or int(serving) > int(before), f"release {serving} serves")


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
        parts: list[Callable[[], None]] = [lambda: deploy_under_load(stack, folder, given.deploys, outcome)]
        parts += [lambda n=n: cut_power(stack, n, outcome) for n in range(1, given.cuts + 1)]  # type: ignore[misc]
        for part in parts:
            part()
        print(stack.step("history"))
    finally:
        stack.step("down", VOLUMES="yes")
        shutil.rmtree(folder, ignore_errors=True)
    print(f"FAIL: {len(outcome.faults)} faults" if outcome.faults else "  all as promised")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
