"""The commands: `python -m loadtest run | search | compare | report | selftest`. Exit statuses: statuses.py."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app import config
from app.errors import SettingsError
from loadtest import (
    capacity,
    choice,
    compare,
    diagnosis,
    driver,
    fingerprint,
    guard,
    new_scenario,
    plans,
    profiles,
    reference,
    replay,
    report,
    scenarios,
    search,
    selftest,
    summary,
    target_lock,
    worker_processes,
)
from loadtest.checks import Verdict
from loadtest.guard import Target
from loadtest.plans import Plan
from loadtest.profiles import Profile
from loadtest.schedule import highest_rate
from loadtest.statistics import least_requests
from loadtest.statuses import LoadTestError, Status

RESULTS = driver.ROOT / "loadtest" / "results"
# An undecided run of a search is repeated at most so many times as long.
LONGER_MOST = 6.0
# Name, type, default, help.
Option = tuple[str, Any, Any, str]
SEARCH_OPTIONS: tuple[Option, ...] = (
    ("start", float, 4.0, "first rate to try, in requests per second"),
    ("most", float, 4096.0, "highest rate to try; LOADTEST_MAX_RPS limits it too"),
    ("resolution", float, search.RESOLUTION, "stop when the gap between passing and failing rate is this share of it"),
)
# Of a run and of a search.
LOAD_OPTIONS: tuple[Option, ...] = (
    ("slo", str, "default", "limits to judge by: a table of loadtest/slo.toml, or FILE.toml:table"),
    ("scenario", str, "", "Python files with request() and check(), or with Locust user classes"),
    ("mix", str, "", "who calls, such as claims:1 classify:3, instead of the profile's mix"),
    ("model", str, None, "open: requests start on schedule; closed: --callers wait for each answer"),
    ("callers", int, 1, "closed model: number of concurrent callers"),
    ("rate", float, None, "requests per second instead of the profile's; where the rate changes, the peak"),
    ("seconds", float, None, "duration after the warm-up, instead of the profile's"),
    ("think", float, None, "closed model: mean think time after an answer, in seconds"),
    ("warm-up", float, None, "seconds of load at the start that are not judged"),
    ("repeats", float, 0.0, "share of requests with repeated bytes, which a cache may answer, 0 … 1"),
    ("seed", int, 1, "the same seed sends the same requests at the same times"),
    ("processes", int, 1, "number of worker processes; each needs a core of its own"),
    ("join", str, "", "ADDRESS:PORT of this machine where that many workers, started elsewhere, connect"),
    ("timeout", float, 10.0, "request timeout in seconds"),
    ("slots", int, None, "most concurrent requests of a worker; default: from rate and timeout"),
    ("host", str, "", "the target; must be the address in LOADTEST_HOST"),
    ("ca", Path, None, "PEM file of the certificate authority of the target"),
    ("confirm", str, "", "name of the environment, where LOADTEST_ALLOW=confirm asks for it"),
    ("folder", Path, None, "folder for the results, instead of a new one in loadtest/results"),
)
# Of a run.
RUN_OPTIONS: tuple[Option, ...] = (
    ("replay", str, "", "access logs whose arrivals are sent again, instead of the profile's"),
    ("speed", float, 1.0, "replay so many times as fast"),
)
# These stand in no command that repeats a run.
NOT_REPEATED = ("folder", "confirm", "host", "join")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. What goes wrong is one line on stderr."""
    arguments = _parser().parse_args(argv)
    # A CI that cancels its job sends SIGTERM; the load must stop then as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(arguments.command(arguments))
    except LoadTestError as error:
        print(f"{error.status.name}: {error}", file=sys.stderr)
        return int(error.status)
    except SettingsError as error:
        print(f"USAGE: {error.message}", file=sys.stderr)
        return int(Status.USAGE)
    except KeyboardInterrupt:
        print("INVALID: interrupted; the load has stopped.", file=sys.stderr)
        return int(Status.INVALID)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest", description="Load test: send load to the target of ENV and judge it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run one load profile and judge it")
    run.set_defaults(command=_run, name="run")
    run.add_argument("--profile", default="smoke", help=f"one of {', '.join(profiles.names())}")
    _add_options(run, (*LOAD_OPTIONS, *RUN_OPTIONS))
    find = commands.add_parser(
        "search", help="find the highest rate that meets the SLO, and write it down as the capacity"
    )
    find.set_defaults(command=_search, name="search", profile="probe")
    _add_options(find, (*SEARCH_OPTIONS, *LOAD_OPTIONS))
    worker = commands.add_parser("worker", help="send load for a load test that another machine plans")
    worker.set_defaults(command=_worker)
    worker.add_argument("--master", required=True, metavar="ADDRESS:PORT", help="where that machine waits for workers")
    names = ("processes", "scenario", "confirm", "ca")
    _add_options(worker, [option for option in LOAD_OPTIONS if option[0] in names])
    versus = commands.add_parser("compare", help="compare runs before a change with runs after it")
    versus.set_defaults(command=_compare)
    for side in ("--before", "--after"):
        words = "result folders: eight or more taken alternately, or at least five"
        versus.add_argument(side, nargs="+", type=Path, required=True, metavar="FOLDER", help=words)
    page = commands.add_parser("report", help="write the HTML report of a run or a search again")
    page.set_defaults(command=_report)
    page.add_argument("folder", type=Path, help="below loadtest/results")
    new = commands.add_parser("new", help="write a scenario file from an OpenAPI description (3.0 or 3.1)")
    new.set_defaults(command=_new)
    new.add_argument("--openapi", required=True, metavar="PLACE", help="a file, or an address such as …/openapi.json")
    new.add_argument("--name", required=True, metavar="NAME", help="of the scenario; the file is NAME.py")
    new.add_argument("--folder", type=Path, default=Path(), metavar="PATH", help="where to write it, instead of here")
    new.add_argument("--only", default="", metavar="PATH", help="only operations whose path begins so")
    test = commands.add_parser("selftest", help="check that this tool finds the faults of a faulty test server")
    test.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(selftest.PARTS)}; all when none")
    test.set_defaults(command=lambda given: selftest.main(given.parts))
    return parser


def _add_options(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    for name, kind, default, words in options:
        # So that --help names a file, a number, not the option again.
        metavar = {Path: "PATH", str: "NAME"}.get(kind, "NUMBER")
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=words)


def _run(arguments: argparse.Namespace) -> Status:
    settings = _settings(arguments)
    if arguments.replay:
        return _replay(arguments, settings)
    profile = _profile(arguments, settings)
    target = _admit(arguments, settings, highest_rate(profile.stages))
    with target_lock.hold(target.url, _say):
        plan, known = prepare(arguments, profile, target, settings)
        return _drive(plan, known, target)


def _replay(arguments: argparse.Namespace, settings: config.Settings) -> Status:
    if arguments.rate is not None or arguments.model == "closed":
        raise profiles.UsageError("REPLAY has its own arrivals: give SPEED instead of RATE, and the open model.")
    prefix = guard.target_of(settings.loadtest_host).prefix
    log, told = replay.log_of(arguments.replay, arguments.speed, arguments.seconds, prefix)
    # Whatever is left out later makes it less.
    most = replay.Replay([entry.at for entry in log.entries], [], [], "").highest_rate
    target = _admit(arguments, settings, most)
    profile = profiles.read_profile("smoke")
    profile = dataclasses.replace(profile, name="replay", question=f"How is {arguments.replay} answered again?")
    profile = dataclasses.replace(profile, mix=replay.words_for(log.entries), warm_up_seconds=arguments.warm_up or 0.0)
    with target_lock.hold(target.url, _say):
        plan, known = prepare(arguments, profile, target, settings)
        found = scenarios.build(plan.mix, plan.sources)
        caller = scenarios.Caller(found, list(plan.mix.values()), known.known, token=target.token)
        again = replay.plan(log.entries, told, caller, list(plan.mix.values()), plan.seed)
        _say(f"Replaying {again.told}.")
        again.write(plan.folder)
        profile = dataclasses.replace(profile, stages=(again.stage,))
        slots = arguments.slots or plans.slots_for(profile, arguments.timeout, arguments.processes)
        plan = dataclasses.replace(plan, profile=profile, mix=again.mix, replay=again.told, slots=slots)
        return _drive(plan, known, target)


def _drive(plan: Plan, known: reference.Reference, target: Target) -> Status:
    """Send, judge, report."""
    _say_where_to_join(plan)
    verdict = driver.run(plan, target, known, show=_show if sys.stderr.isatty() else None)
    report.write(plan.folder)
    print(summary.render(plan, verdict, shutil.get_terminal_size().columns if sys.stdout.isatty() else 0))
    return verdict.status


def _say_where_to_join(plan: Plan) -> None:
    if plan.join_port:
        where = f"MASTER={plan.join_host}:{plan.join_port} ENV={plan.env}"
        _say(f"Waiting for {plan.workers} workers: make loadtest-worker {where} on each machine that is to send.")


def _search(arguments: argparse.Namespace) -> Status:
    settings = _settings(arguments)
    most = min(arguments.most, settings.loadtest_max_rps or arguments.most)
    target = _admit(arguments, settings, most)
    base = profiles.read_profile("probe")
    with target_lock.hold(target.url, _say):
        first, known = prepare(arguments, base, target, settings)
    probes = _Probes(first, target, known, arguments.seconds)
    _say_where_to_join(first)
    print(f"Searching {target.url} ({settings.env}), {first.callers}, SLO {first.slo.name}")
    found = search.search(probes.probe, arguments.start, most, arguments.resolution, _tell)
    table = capacity.table_of(found, first)
    path = capacity.write(RESULTS if arguments.folder is None else first.folder, settings.env, table)
    report.write_card(path)
    print(capacity.card(table), f"\n  Written: {path}")
    if found.status == Status.PASS and first.is_cask:
        print(f"  {capacity.publish(path, target, settings.port, settings.state_dir)}")
    return found.status


def _settings(arguments: argparse.Namespace) -> config.Settings:
    """The settings of this environment; --ca stands for LOADTEST_CA_FILE, in Locust's processes too."""
    if arguments.ca:
        os.environ["LOADTEST_CA_FILE"] = str(arguments.ca.resolve())
    return config.resolve()


class _Probes:
    """Sends one rate after another, each into a folder of its own, each to a target at rest."""

    def __init__(self, plan: Plan, target: Target, known: reference.Reference, seconds: float | None) -> None:
        self._plan, self._target, self._known, self._seconds = plan, target, known, seconds
        found = scenarios.build(plan.mix, plan.sources)
        # Of a service that does not say whether it is at rest.
        self._caller = (
            None if plan.is_cask else scenarios.Caller(found, [1.0] * len(found), known.known, token=target.token)
        )
        self._count = 0

    def probe(self, rate: float, is_confirmation: bool) -> Verdict:
        """Judge one rate; the confirming run is twice as long, and an undecided one is repeated as long as decides."""
        profile = self._plan.profile
        needed = max(least_requests(share, self._plan.slo.confidence) for share in profile.claims)
        # Three times what is needed, so that a few late ones can be told from many.
        seconds = max(self._seconds or 15.0, 3 * needed / rate) * (2 if is_confirmation else 1)
        verdict = self._run(rate, seconds)
        longer = verdict.figures["needs_seconds"]
        # Near its limit a server's queue is long and slow, and a short run says too little.
        if verdict.status == Status.UNDECIDED and longer and longer <= seconds * LONGER_MOST:
            verdict = self._run(rate, longer)
        return verdict

    def _run(self, rate: float, seconds: float) -> Verdict:
        profile = profiles.with_rate(self._plan.profile, rate, seconds)
        self._count += 1
        folder = self._plan.folder / f"{self._count:02d}-{rate:.1f}rps"
        folder.mkdir()
        plan = dataclasses.replace(
            self._plan,
            folder=folder,
            profile=profile,
            seed=self._plan.seed + self._count,
            slots=plans.slots_for(profile, self._plan.timeout_seconds, self._plan.workers),
        )
        # Between two rates another may have its turn.
        with target_lock.hold(self._target.url, _say):
            reference.wait_until_at_rest(self._target, self._caller)
            return driver.run(plan, self._target, self._known, show=_show if sys.stderr.isatty() else None)


def _tell(step: search.Step) -> None:
    p95 = step.verdict.figures["response_ms"]["p95"]
    said = "no answer" if p95 is None else f"p95 {p95:.0f} ms"
    word = " (confirming)" if step.is_confirmation else ""
    word += ", machine busy with others" if diagnosis.disturbed_by(step.verdict.figures.get("machine", {})) else ""
    print(f"  {step.rate:8.1f}/s  {step.verdict.status.name:<10} {said}{word}", flush=True)


def _worker(arguments: argparse.Namespace) -> Status:
    settings = _settings(arguments)
    ask = input if sys.stdin.isatty() else None
    target = guard.admit(settings, confirmed=arguments.confirm, ask=ask)
    host, port = _address("MASTER", arguments.master)
    _say(f"{arguments.processes} workers for {target.url} ({settings.env}) wait for {host}:{port}; Ctrl-C ends them.")
    return worker_processes.keep((host, port), arguments.processes, _absolute(arguments.scenario), settings.env)


def _absolute(files: str) -> str:
    """Locust's processes run in another folder."""
    return " ".join(str(Path(word).resolve()) for word in files.split())


def _address(name: str, given: str) -> tuple[str, int]:
    """ADDRESS:PORT in its parts; loopback where only a port is given. Raises UsageError."""
    host, _, port = given.rpartition(":")
    host = host.strip("[]") or plans.LOOPBACK
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise profiles.UsageError(f"{name} is {given!r}; expected an address and a port, such as 10.0.0.1:5557.")
    if host in ("*", "::", "0.0.0.0"):  # noqa: S104 - refused
        raise profiles.UsageError(
            f"{name} is {given!r}, every network of this machine; the port has no login. Name the address on the"
            " workers' network, or 127.0.0.1 and tunnels by ssh (docs/loadtest.md)."
        )
    return host, int(port)


def _report(arguments: argparse.Namespace) -> Status:
    print(report.write(arguments.folder))
    return Status.PASS


def _new(arguments: argparse.Namespace) -> Status:
    path = arguments.folder / f"{arguments.name}.py"
    if not new_scenario.NAME.fullmatch(arguments.name):
        raise profiles.UsageError(f"NAME is {arguments.name!r}; expected small letters, digits and _, such as shop.")
    if path.exists():
        raise profiles.UsageError(f"{path} is there already; nothing was touched.")
    target = guard.target_of(config.resolve().loadtest_host)
    document = new_scenario.read(arguments.openapi, target)
    written = new_scenario.write(document, target.prefix, arguments.only)
    path.write_text(written.text, encoding="utf-8")
    print(
        f"{path} has {written.count} scenarios, called {arguments.name}_…; what they send is made up where it says so."
    )
    for each in written.left_out:
        print(f"  left out: {each}")
    print(f"Next: make loadtest PROFILE=smoke SCENARIO={path}")
    return Status.PASS


def _compare(arguments: argparse.Namespace) -> Status:
    sides = [[compare.read(folder) for folder in side] for side in (arguments.before, arguments.after)]
    found = compare.compare(*sides)
    print(compare.render(found))
    return compare.status_of(found)


def _profile(arguments: argparse.Namespace, settings: config.Settings) -> Profile:
    known = capacity.known_rps(RESULTS, settings.env, guard.target_of(settings.loadtest_host).url)
    profile = profiles.read_profile(arguments.profile, known if arguments.rate is None else arguments.rate)
    profile = profiles.with_rate(profile, arguments.rate, arguments.seconds)
    profile = profiles.with_model(profile, arguments.model, arguments.callers)
    return profiles.with_warm_up(profiles.with_thinking(profile, arguments.think), arguments.warm_up)


def _admit(arguments: argparse.Namespace, settings: config.Settings, highest_rps: float) -> Target:
    ask = input if sys.stdin.isatty() else None
    return guard.admit(settings, host=arguments.host, highest_rps=highest_rps, confirmed=arguments.confirm, ask=ask)


def prepare(
    arguments: argparse.Namespace, profile: Profile, target: Target, settings: config.Settings
) -> tuple[Plan, reference.Reference]:
    """The plan of one run and the golden answers for it. Asks the target at rest. Raises LoadTestError."""
    _check_options(arguments)
    join_host, join_port = _address("JOIN", arguments.join) if arguments.join else ("", 0)
    env = settings.env
    slo = profiles.read_slo(arguments.slo)
    chosen = choice.choose(target, settings, arguments.mix, arguments.scenario, profile.mix, slo.scenarios)
    known = reference.take(target, chosen.scenarios, chosen.models, patience=arguments.timeout)
    plan = Plan(
        folder=_new_folder(arguments.folder, env, profile.name),
        url=target.url,
        env=env,
        profile=profile,
        slo=slo,
        mix=chosen.mix,
        seed=arguments.seed,
        workers=arguments.processes,
        slots=arguments.slots or plans.slots_for(profile, arguments.timeout, arguments.processes),
        timeout_seconds=arguments.timeout,
        repeat_share=arguments.repeats,
        fingerprint=fingerprint.take(target, driver.ROOT, known.models, known.digests, is_cask=chosen.is_cask),
        command=command_of(arguments, target, env),
        sources=chosen.sources,
        is_cask=chosen.is_cask,
        join_port=join_port,
        join_host=join_host,
    )
    return plan, known


def _check_options(arguments: argparse.Namespace) -> None:
    for name, value, least, most in (
        ("repeats", arguments.repeats, 0, 1),
        ("processes", arguments.processes, 1, 256),
        ("timeout", arguments.timeout, 0.001, 3600),
        ("seed", arguments.seed, 0, 2**31),
    ):
        if not least <= value <= most:
            raise profiles.UsageError(f"--{name} is {value:g}; expected {least:g} to {most:g}.")


def _new_folder(asked: Path | None, env: str, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = (asked or RESULTS / f"{env}-{name}-{stamp}").resolve()
    number = 1
    while folder.exists() and any(folder.iterdir()):
        if asked:
            raise profiles.UsageError(f"{folder} is not empty; expected a new folder, so that no run is overwritten.")
        number += 1
        folder = RESULTS / f"{env}-{name}-{stamp}-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def command_of(arguments: argparse.Namespace, target: Target, env: str) -> str:
    """The exact command that repeats this run: every option that was not left out, the seed always."""
    words = [f"ENV={env}", f"LOADTEST_HOST={target.url}", ".venv/bin/python -m loadtest", arguments.name]
    if arguments.name == "run":
        words.append(f"--profile {arguments.profile}")
    for name, _, default, _ in (*LOAD_OPTIONS, *RUN_OPTIONS):
        value = getattr(arguments, name.replace("-", "_"), default)
        if name == "seed" or (name not in NOT_REPEATED and value != default):
            words.append(f"--{name} {shlex.quote(str(value))}")
    return " ".join(words)


@functools.cache
def _say(line: str) -> None:
    """Say it once: two searches take many turns."""
    print(line, file=sys.stderr, flush=True)


def _show(line: str) -> None:
    # A line that wraps could not be taken back.
    width = shutil.get_terminal_size().columns - 3
    print(f"\r\x1b[K  {line[:width]}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
