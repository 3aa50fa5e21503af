"""The engine's side: what Locust runs. Also by itself: `locust -f loadtest/locustfile.py`, web page included.

By itself it is Locust as people know it: so many users who ask, wait and think. It loads what the guard allows and
nothing else, and its page is on loopback. `python -m loadtest run` adds --run-folder, and then this drives the plan in
that folder: the open model, raw rows, no statistics of Locust's.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import flask
import gevent
from gevent.event import AsyncResult
from locust import User, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from app import config
from app.errors import SettingsError
from loadtest import choice, foreign_users, guard, plans, reference, remote_workers, replay, scenarios
from loadtest.connections import Connections
from loadtest.dispatcher import Dispatcher, clock_from
from loadtest.outcomes import REFUSALS, Outcome
from loadtest.request_log import Recorder
from loadtest.scenario import Scenario
from loadtest.scenarios import Caller
from loadtest.schedule import highest_rate, share_of_worker
from loadtest.sender import Sender
from loadtest.statuses import LoadTestError, Status, UsageError

BEGIN = "cask-begin"
# Long enough for every worker to hear it.
HEAD_START_SECONDS = 1.0
# Of a person at the page.
TIMEOUT_SECONDS = 30.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")

# The moment at which the run begins: by the clock of the one that plans, and by this machine's.
begin: AsyncResult = AsyncResult()
# Set when CaskDispatcher has its plan: at once, or when it has come from another machine.
planned: AsyncResult = AsyncResult()
log = logging.getLogger("loadtest")


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--run-folder", default="", include_in_web_ui=False, help="Drive the plan in this folder.")
    parser.add_argument("--driver", type=int, default=0, include_in_web_ui=False, help="Ends when that process does.")
    parser.add_argument("--join", action="store_true", include_in_web_ui=False, help="The plan is the master's.")
    parser.add_argument("--mix", default="", help="Who calls: as MIX of make loadtest.")
    parser.add_argument("--scenario", default="", include_in_web_ui=False, help="A file with request() and check().")
    parser.add_argument(
        "--confirm", default="", include_in_web_ui=False, help="The environment's name, where a person must agree."
    )
    # Locust's own default is every interface, without a login.
    parser.set_defaults(web_host="127.0.0.1", host=config.resolve().loadtest_host)


@events.init.add_listener
def _prepare(environment: Environment, runner: Any, **_: Any) -> None:
    options: Any = environment.parsed_options
    if not options.headless and not options.worker and options.web_host not in LOOPBACK:
        _refuse(f"--web-host is {options.web_host!r}; the page has no login, expected one of {', '.join(LOOPBACK)}.")
    if options.join:
        _prepare_remote(environment, runner)
        return
    if options.run_folder:
        _prepare_plan(environment, runner, Path(options.run_folder))
        return
    # A person may bring a class of their own in another file; Locust's own list then holds it, and it runs.
    theirs = [class_ for class_ in environment.user_classes if class_ not in (CaskDispatcher, CaskCaller)]
    environment.user_classes = theirs or [CaskCaller]
    for their in theirs:
        _allow(their)
    if theirs:
        named = ", ".join(their.__name__ for their in theirs)
        log.warning("Running %s of yours instead of CaskCaller; its answers are not compared.", named)
    if not isinstance(runner, MasterRunner):
        _prepare_callers(environment)
    if environment.web_ui:
        _refuse_in_the_page(environment, options.confirm)


def _allow(theirs: type[User]) -> None:
    """The host of a class of the user's is the one that may be loaded, too."""
    settings = config.resolve()
    if theirs.host:
        try:
            guard.admit(settings, host=theirs.host, confirmed=settings.env)
        except LoadTestError as error:
            _refuse(f"{theirs.__name__}.host is {theirs.host!r}: {error}")
    theirs.host = guard.target_of(settings.loadtest_host).url


def _refuse_in_the_page(environment: Environment, confirmed: str) -> None:
    """A host typed in the page is looked at before anything starts; the page says why it may not be loaded."""
    app: Any = environment.web_ui.app  # type: ignore[union-attr]

    def look() -> Any:
        host = _typed_host(environment)
        if host is None:
            return None
        try:
            guard.admit(config.resolve(), host=host, confirmed=confirmed)
        except LoadTestError as error:
            log.error("REFUSED: %s", error)  # noqa: TRY400 - one line; there is no stack to look at
            told = flask.jsonify({"success": False, "message": f"REFUSED: {error} Nothing was sent.", "host": host})
            # The form shows the message; who edits a class of users is shown the status only.
            return told, 200 if flask.request.path.endswith("/swarm") else 403
        return None

    app.before_request(look)


def _typed_host(environment: Environment) -> str | None:
    """The host that this request of the page would load, by the form or by a class of users; None where it is none."""
    if flask.request.method != "POST":
        return None
    # Below --web-base-path, too.
    if flask.request.path.endswith("/swarm"):
        return flask.request.form.get("host") or environment.host or ""
    if flask.request.path.endswith("/user"):
        return (flask.request.get_json(force=True, silent=True) or {}).get("host")
    return None


def _prepare_plan(environment: Environment, runner: Any, folder: Path) -> None:
    try:
        plan = plans.read(folder)
        _take(environment, plan)
    except LoadTestError as error:
        _refuse(str(error), error.status)
    options: Any = environment.parsed_options
    # By its number, for it may be gone before this line. A worker's parent is another: Locust's own master.
    gevent.spawn(_end_with_parent, os.getppid() if isinstance(runner, WorkerRunner) else options.driver)
    if isinstance(runner, WorkerRunner):
        runner.register_message(BEGIN, lambda msg, **_: begin.set((msg.data["epoch"], msg.data["epoch"])))
    elif plan.join_port:
        _await_workers(environment, runner, plan)


def _take(environment: Environment, plan: plans.Plan) -> None:
    """Make this plan the one that is driven. Raises LoadTestError."""
    environment.user_classes = [CaskDispatcher]
    CaskDispatcher.plan = plan
    environment.host = CaskDispatcher.host = plan.url
    found = scenarios.build(plan.mix, plan.sources, {replay.REPLAYED: replay.scenario()})
    CaskDispatcher.scenarios = _with_users(environment, found)
    planned.set(plan)


def _await_workers(environment: Environment, runner: MasterRunner, plan: plans.Plan) -> None:
    """Of the one that plans: workers elsewhere get their plan, and all begin at one moment."""

    def say_begin() -> None:
        # Of a worker whose clock is another, only the span between the two counts.
        runner.send_message(BEGIN, {"epoch": time.time() + HEAD_START_SECONDS, "sent": time.time()})

    def lose(words: str) -> None:
        log.error("%s", words)
        gevent.spawn(end)

    def end() -> None:
        runner.quit()
        os._exit(int(Status.INVALID))

    workers = remote_workers.Workers(runner, plan, say_begin, lose)
    gevent.spawn(workers.watch)

    # Locust ends by itself when the last worker has gone.
    @environment.events.quitting.add_listener
    def _say_who_was_lost(**_: Any) -> None:
        if lost := workers.lost():
            log.error("%s", lost)


def _prepare_remote(environment: Environment, runner: WorkerRunner) -> None:
    """Of a worker on another machine than the one that plans."""
    options: Any = environment.parsed_options
    environment.user_classes = [CaskDispatcher]

    def take(plan: plans.Plan) -> None:
        _admit(plan, options.confirm)
        _take(environment, plan)

    def end(words: str, status: Status) -> None:
        log.error("%s: %s", status.name, words)
        # The master may end this process before the other line does.
        environment.process_exit_code = int(status)
        gevent.spawn_later(HEAD_START_SECONDS, os._exit, int(status))

    def hear_begin(msg: Any, **_: Any) -> None:
        begin.set((msg.data["epoch"], time.time() + msg.data["epoch"] - msg.data["sent"]))

    gevent.spawn(_end_with_parent, os.getppid())
    gevent.spawn(_end_without_master, environment)
    runner.register_message(BEGIN, hear_begin)
    given = [Path(word) for word in options.scenario.split()]
    CaskDispatcher.remote = remote_workers.RemoteWorker(runner, given, take, end)
    CaskDispatcher.remote.join()


def _admit(plan: plans.Plan, confirmed: str) -> None:
    """Another machine's plan loads what this one's settings allow, and nothing else. Raises LoadTestError."""
    settings = config.resolve()
    if plan.env != settings.env:
        raise UsageError(f"it was started with ENV={settings.env}, the plan is for {plan.env}; give both the same")
    guard.admit(settings, host=plan.url, highest_rps=highest_rate(plan.profile.stages), confirmed=confirmed)


def _end_without_master(environment: Environment) -> None:
    """A load that nobody judges any more stops. By a clock that does not jump."""
    heard_at = time.monotonic()

    @environment.events.heartbeat_received.add_listener
    def _hear(**_: Any) -> None:
        nonlocal heard_at
        heard_at = time.monotonic()

    while time.monotonic() < heard_at + remote_workers.SILENT_SECONDS:
        gevent.sleep(1)
    log.error("The one that plans has not been heard of for %g s; the load has stopped.", remote_workers.SILENT_SECONDS)
    os._exit(int(Status.INVALID))


def _with_users(environment: Environment, found: Iterable[Scenario]) -> list[Scenario]:
    """The scenarios; those of Locust's users with the classes of their files."""
    return [each if each.request else _of_users(environment, each) for each in found]


def _of_users(environment: Environment, scenario: Scenario) -> Scenario:
    classes = foreign_users.classes_of(Path(scenario.source))
    if not classes:
        raise UsageError(f"{scenario.source} has neither request() nor a Locust user class.")
    for each in classes:
        _allow(each)
    return dataclasses.replace(scenario, perform=foreign_users.ForeignUsers(environment, classes).perform)


def _end_with_parent(parent: int) -> None:
    """Nobody would stop the load, nor judge it, once the driver is gone, whatever ended it."""
    while os.getppid() == parent:
        gevent.sleep(0.5)
    os._exit(int(Status.INVALID))


@events.spawning_complete.add_listener
def _begin(user_count: int, **_: Any) -> None:
    """Everybody is there: agree on the moment at which the run begins."""
    runner = CaskDispatcher.runner
    if isinstance(runner, MasterRunner) and not CaskDispatcher.plan.join_port:
        runner.send_message(BEGIN, {"epoch": time.time() + HEAD_START_SECONDS})


@events.test_start.add_listener
def _check_host(environment: Environment, **_: Any) -> None:
    """The page lets people type another host."""
    runner: Any = environment.runner
    options: Any = environment.parsed_options
    CaskDispatcher.runner = runner
    if options.run_folder or options.join:
        if not isinstance(runner, MasterRunner | WorkerRunner):
            epoch = time.time() + HEAD_START_SECONDS
            begin.set((epoch, epoch))
        return
    try:
        allowed = guard.admit(config.resolve(), host=environment.host or "", confirmed=options.confirm)
        environment.host = allowed.url
        CaskCaller.is_refused = False
    except LoadTestError as error:
        log.error("REFUSED: %s", error)  # noqa: TRY400 - one line; there is no stack to look at
        # Raising here would not stop the load.
        environment.process_exit_code = int(Status.REFUSED)
        CaskCaller.is_refused = True
        # The page stays, so that the host can be typed again; without one there is nothing left to do.
        gevent.spawn(runner.quit if options.headless else runner.stop)


def _prepare_callers(environment: Environment) -> None:
    """Guard and golden answers, once, before the page is up."""
    options: Any = environment.parsed_options
    try:
        settings = config.resolve()
        target = guard.admit(settings, host=environment.host or "", confirmed=options.confirm)
        chosen = choice.choose(target, settings, options.mix, options.scenario)
        known = reference.take(target, chosen.scenarios, chosen.models)
        CaskCaller.target, CaskCaller.host = target, target.url
        found = _with_users(environment, chosen.scenarios)
        CaskCaller.make = partial(Caller, found, list(chosen.mix.values()), known.known)
    except (LoadTestError, SettingsError) as error:
        status = error.status if isinstance(error, LoadTestError) else Status.USAGE
        _refuse(str(error), status)


def _refuse(words: str, status: Status = Status.REFUSED) -> None:
    log.error("%s: %s", status.name, words)
    raise SystemExit(int(status))


class CaskDispatcher(User):
    """One a worker: starts every request of the worker's share at its moment."""

    plan: plans.Plan
    scenarios: list[Scenario]
    runner: Any = None
    remote: remote_workers.RemoteWorker | None = None
    has_begun = False

    @task
    def drive(self) -> None:
        """Drive the plan, leave the record, and wait to be ended."""
        if CaskDispatcher.has_begun:
            # Locust gives a lost worker's dispatcher to another worker.
            raise StopUser
        CaskDispatcher.has_begun = True
        plan = planned.get()
        self._drive(plan, self.remote.index if self.remote else max(0, getattr(self.runner, "worker_index", 0)))
        if self.remote:
            self.remote.finish()
        raise StopUser

    def _drive(self, plan: plans.Plan, worker: int) -> None:
        folder = plan.folder
        recorder, seed = Recorder(folder, worker), plan.seed * 1000 + worker
        settings, caller = config.resolve(), self._caller(seed)
        moments = share_of_worker(plans.moments(plan), worker, plan.workers)
        if self.remote:
            self.remote.ready()
        began_at, begins_here = begin.get()
        clock = clock_from(begins_here)
        connections = Connections(plan.url, plan.slots, str(settings.loadtest_ca_file or ""))
        sending = Sender(connections, recorder, clock, plan.timeout_seconds)
        stop_when_bad = plan.profile.stop_when_bad
        again = replay.read(folder)
        asking = replay.Replayer(caller, again, worker, plan.workers) if again else caller
        driving = Dispatcher(sending, asking, recorder, clock, stop_when_bad=stop_when_bad, seed=seed)
        # A collection in mid-run is a pause that the server would be blamed for.
        gc.collect()
        gc.freeze()
        used = time.process_time()
        if plan.profile.model == "open":
            driving.open(moments, plan.slots)
        else:
            self._drive_callers(driving, plan, worker)
        connections.close()
        recorder.close(
            {
                "planned": int(moments.size),
                "cpu_seconds": time.process_time() - used,
                "stopped_early": driving.stopped_early,
                "began_at": began_at,
                "repeated": connections.repeated,
                "pid": os.getpid(),
            }
        )

    def _caller(self, seed: int) -> Caller:
        plan = self.plan
        return Caller(
            self.scenarios,
            list(plan.mix.values()),
            reference.read(plan.folder).known,
            seed=seed,
            # Not from the plan: that is a file.
            token=config.resolve().loadtest_token.get_secret_value(),
            repeat_share=plan.repeat_share,
            patience_seconds=plan.timeout_seconds,
        )

    def _drive_callers(self, driving: Dispatcher, plan: plans.Plan, worker: int) -> None:
        began, running = 0.0, []
        for stage in plan.profile.stages:
            callers = stage.callers // plan.workers + (worker < stage.callers % plan.workers)
            if callers:
                span = (callers, began, began + stage.seconds, plan.profile.think_seconds)
                running.append(gevent.spawn(driving.closed, *span))
            began += stage.seconds
        gevent.joinall(running, raise_error=True)


class CaskCaller(User):
    """A person at Locust's page counts these: one caller who asks, reads the answer, thinks and asks again."""

    wait_time = between(0.5, 1.5)
    is_refused = False
    target: guard.Target
    make: Callable[..., Caller]

    def on_start(self) -> None:
        """Each user has a chance of its own."""
        if self.is_refused:
            raise StopUser
        cls = type(self)
        self._caller = cls.make(seed=id(self), token=cls.target.token)
        connections = Connections(cls.target.url, 1, cls.target.ca_file)
        names = [each.name for each in self._caller.scenarios]
        record: Any = LocustRecorder(self.environment, names)
        self._sender = Sender(connections, record, time.perf_counter, TIMEOUT_SECONDS)

    @task
    def ask(self) -> None:
        """One turn of the mix; a wrong answer is a failure, too."""
        self._sender.send(self._caller.next(), time.perf_counter())


class LocustRecorder:
    """Tells Locust of each turn by its scenario's name: its time, the answers' size, and what was wrong."""

    def __init__(self, environment: Environment, names: list[str]) -> None:
        self._request, self._names = environment.events.request, names

    def add(self, row: tuple[Any, ...]) -> None:
        """One row of Recorder's."""
        _, sent, done, outcome, index, _, _, _, size, _ = row
        self._row = (self._names[index], (done - sent) * 1000, size)
        if outcome == Outcome.RIGHT:
            self._tell(None)

    def metrics(self, intended: float, noted: Any) -> None:
        """Locust has no place for them."""

    def refusal(self, scenario: str, status: int, code: str) -> None:
        """A refusal has no words of its own."""
        if status in REFUSALS:
            self._tell(AssertionError(f"refused: {status} {code}"))

    def example(self, outcome: Outcome, request_id: str, moment: float, words: str) -> None:
        """What was wrong, which Locust counts by its words."""
        self._tell(AssertionError(f"{outcome.name.lower()}: {words}"[:120]))

    def _tell(self, error: Exception | None) -> None:
        name, milliseconds, size = self._row
        told = {"request_type": "TURN", "name": name, "response_time": milliseconds, "response_length": size}
        self._request.fire(**told, exception=error, context={})
