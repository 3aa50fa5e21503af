"""One run from beginning to end: plan, Locust as a child, record, verdict."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loadtest import fingerprint, progress, request_log, sampling, schedule
from loadtest.checks import Check, Verdict, junit
from loadtest.guard import Target
from loadtest.plans import JOIN_SECONDS, LOOPBACK, Plan
from loadtest.reference import Reference
from loadtest.sampling import Sampler
from loadtest.statuses import Status
from loadtest.verdict import judge

ROOT = Path(__file__).resolve().parent.parent
LOCUSTFILE = ROOT / "loadtest" / "locustfile.py"
# Start of Locust and its workers, and what they take to write their last rows.
START_SECONDS = 30.0
GRACE_SECONDS = 5.0
PERIOD_SECONDS = 0.5
PRIORITY = -10
VERDICT_FILE = "verdict.json"
JUNIT_FILE = "junit.xml"
LOG_FILE = "locust.log"
# Before the words of a line of Locust's log: moment, machine, level, logger.
LOGGED_BY = re.compile(r"^\[[^\]]*\] \S+/[A-Z]+/\S+: ")


def run(plan: Plan, target: Target, known: Reference, *, show: Callable[[str], None] | None = None) -> Verdict:
    """Send what the plan says and judge it. Leaves everything in the plan's folder."""
    known.write(plan.folder)
    plan.write()
    server, host = plan.folder / sampling.SERVER_FILE, plan.folder / sampling.HOST_FILE
    is_shared = sampling.is_this_machine(target.host)
    of_server = partial(sampling.of_server, target) if plan.is_cask else dict
    with Sampler(of_server, server), Sampler(lambda: sampling.of_host(is_shared), host):
        ended = _drive(plan, show)
    record = request_log.read(plan.folder, plan.workers)
    if machines := fingerprint.of_workers(record.workers):
        plan = dataclasses.replace(plan, fingerprint=plan.fingerprint | machines)
        plan.write()
    judged = judge(record, plan.profile, plan.slo, sampling.read(server), sampling.read(host), list(plan.mix))
    verdict = _with_surprises(judged, known, ended)
    write(plan, verdict)
    return verdict


def write(plan: Plan, verdict: Verdict) -> None:
    """Leave the verdict for programs: JSON and JUnit XML."""
    table = {**verdict.to_dict(), "profile": plan.profile.name, "env": plan.env, "url": plan.url, "seed": plan.seed}
    table |= {
        "command": plan.command,
        "fingerprint": plan.fingerprint,
        "examples": request_log.examples(plan.folder)[:10],
    }
    (plan.folder / VERDICT_FILE).write_text(json.dumps(table, indent=1))
    (plan.folder / JUNIT_FILE).write_text(junit(plan.profile.name, verdict))


def _with_surprises(verdict: Verdict, known: Reference, ended: str) -> Verdict:
    """Add what is known besides the rows: an answer that was wrong before any load, an engine that crashed."""
    checks = list(verdict.checks)
    status, cause = verdict.status, verdict.cause
    if known.surprises:
        cause = f"The answers were wrong before any load: {known.surprises[0]}."
        checks.append(Check("answers at rest", Status.FAIL, known.surprises[0], "what the pictures show"))
        status = Status.FAIL
    if ended:
        cause = cause if known.surprises else f"The generator did not come to its end: {ended}."
        checks.append(Check("generator", Status.INVALID, ended, "runs to its end"))
        status = Status.FAIL if status == Status.FAIL and known.surprises else Status.INVALID
    return dataclasses.replace(verdict, status=status, checks=checks, cause=cause)


def command_of(plan: Plan) -> list[str]:
    """How Locust is started: headless, on loopback, one dispatcher a worker."""
    options: dict[str, object] = {"run-folder": plan.folder, "driver": os.getpid(), "host": plan.url}
    options |= {"users": plan.workers, "spawn-rate": plan.workers, "loglevel": "WARNING"}
    flags = ["--headless", "--only-summary", "--reset-stats"]
    if plan.join_port:
        flags.append("--master")
        # remote_workers.py gives up earlier, and says who is missing.
        options |= {"expect-workers": plan.workers, "expect-workers-max-wait": int(JOIN_SECONDS + START_SECONDS)}
        options |= {"master-bind-host": plan.join_host, "master-bind-port": plan.join_port}
    elif plan.workers > 1:
        port = _port()
        options |= {"processes": plan.workers, "master-port": port}
        options |= {"master-bind-host": LOOPBACK, "master-bind-port": port}
    named = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *flags, *named]


def _port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _drive(plan: Plan, show: Callable[[str], None] | None) -> str:
    """Run Locust until every worker is done; why it ended otherwise, or empty."""
    with (plan.folder / LOG_FILE).open("wb") as log:
        # The child reads the same settings and asks for no terminal.
        child = subprocess.Popen(
            command_of(plan),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=go_first,
        )
    try:
        return _follow(plan, child, show)
    finally:
        _end(child)


def go_first() -> None:
    """The generator stands for callers on other machines: beside a busy server it is not to wait for its turn.

    Root may have that; without the right it takes its turn. Called in the child, which is a session and hence a
    scheduling group of its own (sched(7), "The autogroup feature"): its nice value alone would mean nothing to others.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        Path("/proc/self/autogroup").write_text(str(PRIORITY))


def _follow(plan: Plan, child: subprocess.Popen[bytes], show: Callable[[str], None] | None) -> str:
    seconds = schedule.seconds(plan.profile.stages)
    span = seconds + plan.timeout_seconds + GRACE_SECONDS
    joining = JOIN_SECONDS if plan.join_port else 0.0
    give_up_at, has_begun = time.monotonic() + START_SECONDS + joining + span, False
    follower = progress.Follower(plan)
    while len(list(plan.folder.glob("worker-*.json"))) < plan.workers:
        if child.poll() is not None:
            return f"Locust ended with {child.returncode}: {_last_line(plan.folder / LOG_FILE)}"
        if not has_begun and any(path.stat().st_size for path in plan.folder.glob("rows-*.bin")):
            give_up_at, has_begun = time.monotonic() + span, True
        if time.monotonic() > give_up_at:
            return "a worker did not come to its end"
        if show:
            show(follower.line())
        time.sleep(PERIOD_SECONDS)
    if show:
        show(follower.line())
    return ""


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return LOGGED_BY.sub("", lines[-1]) if lines else "it logged nothing"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End Locust and its workers, which are a process group of their own."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            try:
                os.killpg(child.pid, how)
                child.wait(GRACE_SECONDS)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
