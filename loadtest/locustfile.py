"""The engine's side: what Locust runs. Also by itself: `locust -f loadtest/locustfile.py`, web page included.

By itself it is Locust as people know it: so many users who ask, wait and think. It loads what the guard allows and
nothing else, and its page is on loopback. `python -m loadtest run` adds --run-folder, and then this drives the plan in
that folder: the open model, raw rows, no statistics of Locust's.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from pathlib import Path
from typing import Any

import flask
import gevent
from gevent.event import AsyncResult
from locust import FastHttpUser, User, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from app import config
from app.errors import SettingsError
from loadtest import connections, guard, pictures, plans, profiles, reference, scenarios, sender
from loadtest.connections import Connections
from loadtest.dispatcher import Dispatcher, clock_from
from loadtest.foreign_users import ForeignUsers
from loadtest.request_log import Recorder
from loadtest.schedule import arrivals, share_of_worker
from loadtest.sender import Sender
from loadtest.statuses import LoadTestError, Status

BEGIN = "cask-begin"
# Long enough for every worker to hear it.
HEAD_START_SECONDS = 1.0
PLAN_SECONDS = 120.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")

begin: AsyncResult = AsyncResult()
log = logging.getLogger("loadtest")


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--run-folder", default="", include_in_web_ui=False, help="Drive the plan in this folder.")
    parser.add_argument("--driver", type=int, default=0, include_in_web_ui=False, help="Ends when that process does.")
    parser.add_argument("--mix", default="callers", help="Who calls: a table of loadtest/mixes.toml.")
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
    # A person may bring a class of their own in another file; Locust's own list then holds it, and it runs.
    theirs = [class_ for class_ in environment.user_classes if class_ not in (CaskDispatcher, CaskCaller)]
    if options.run_folder:
        _prepare_plan(environment, runner, Path(options.run_folder), theirs)
        return
    environment.user_classes = theirs or [CaskCaller]
    for their in theirs:
        _check_theirs(their)
    if theirs:
        log.warning("Running %s of yours instead of CaskCaller; its answers are not compared.", _names(theirs))
    if not isinstance(runner, MasterRunner):
        _prepare_callers(environment)
    for their in theirs:
        their.host = config.resolve().loadtest_host
    if environment.web_ui:
        _refuse_in_the_page(environment, options.confirm)


def _names(classes: list[type[User]]) -> str:
    return ", ".join(class_.__name__ for class_ in classes)


def _check_theirs(theirs: type[User]) -> None:
    """The host of a class of the user's is the one that may be loaded, too."""
    if theirs.host:
        try:
            guard.admit(config.resolve(), host=theirs.host, confirmed=config.resolve().env)
        except LoadTestError as error:
            _refuse(f"{theirs.__name__}.host is {theirs.host!r}: {error}")


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


def _prepare_plan(environment: Environment, runner: Any, folder: Path, theirs: list[type[User]]) -> None:
    environment.user_classes = [CaskDispatcher]
    _wait_for(folder / plans.FILE_NAME)
    CaskDispatcher.plan = plans.read(folder)
    CaskDispatcher.host = CaskDispatcher.plan.url
    CaskDispatcher.theirs = theirs
    for their in theirs:
        _check_theirs(their)
        their.host = CaskDispatcher.plan.url
    environment.host = CaskDispatcher.plan.url
    options: Any = environment.parsed_options
    # By its number, for it may be gone before this line. A worker's parent is another: Locust's own master.
    gevent.spawn(_end_with_parent, os.getppid() if isinstance(runner, WorkerRunner) else options.driver)
    if isinstance(runner, WorkerRunner):
        runner.register_message(BEGIN, lambda msg, **_: begin.set(msg.data["epoch"]))


def _wait_for(path: Path) -> None:
    """A worker in a container of its own may be there before the one that plans."""
    end = time.monotonic() + PLAN_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            _refuse(f"{path} did not come within {PLAN_SECONDS:g} s; expected one that plans the run.", Status.INVALID)
        time.sleep(0.1)


def _end_with_parent(parent: int) -> None:
    """Nobody would stop the load, nor judge it, once the driver is gone, whatever ended it."""
    while os.getppid() == parent:
        gevent.sleep(0.5)
    os._exit(int(Status.INVALID))


@events.spawning_complete.add_listener
def _begin(user_count: int, **_: Any) -> None:
    """Everybody is there: agree on the moment at which the run begins."""
    runner = CaskDispatcher.runner
    if isinstance(runner, MasterRunner):
        runner.send_message(BEGIN, {"epoch": time.time() + HEAD_START_SECONDS})


@events.test_start.add_listener
def _check_host(environment: Environment, **_: Any) -> None:
    """The page lets people type another host."""
    runner: Any = environment.runner
    options: Any = environment.parsed_options
    CaskDispatcher.runner = runner
    if options.run_folder:
        if not isinstance(runner, MasterRunner | WorkerRunner):
            begin.set(time.time() + HEAD_START_SECONDS)
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
        guard.check_environment(target, settings.env)
        CaskCaller.mix = profiles.read_mix(options.mix, scenarios.SCENARIOS)
        CaskCaller.samples = pictures.samples()
        CaskCaller.reference = reference.take(target, CaskCaller.mix, CaskCaller.samples)
        CaskCaller.host = target.url
        CaskCaller.ssl_context_factory = staticmethod(connections.factory(target.ca_file))
    except (LoadTestError, SettingsError) as error:
        status = error.status if isinstance(error, LoadTestError) else Status.USAGE
        _refuse(str(error), status)


def _refuse(words: str, status: Status = Status.REFUSED) -> None:
    log.error("%s: %s", status.name, words)
    raise SystemExit(int(status))


def _caller(
    known: reference.Reference, mix: dict[str, float], samples: list[pictures.Picture], *, seed: int, **options: float
) -> scenarios.Caller:
    """Who makes the requests, as the target answered at rest."""
    assets = [path for path in known.assets if path != "/"]
    # Not from the plan: that is a file.
    token = config.resolve().loadtest_token.get_secret_value()
    usable = {"models": known.names, "usable": known.golden}
    return scenarios.Caller(mix, samples, assets, seed=seed, token=token, **usable, **options)  # type: ignore[arg-type]


class CaskDispatcher(User):
    """One a worker: starts every request of the worker's share at its moment."""

    plan: plans.Plan
    theirs: list[type[User]]
    runner: Any = None

    @task
    def drive(self) -> None:
        """Drive the plan, leave the record, and wait to be ended."""
        plan, folder = self.plan, self.plan.folder
        worker = max(0, getattr(self.environment.runner, "worker_index", 0))
        known, samples = reference.read(folder), pictures.samples()
        recorder, seed = Recorder(folder, worker), plan.seed * 1000 + worker
        options = {"repeat_share": plan.repeat_share, "patience_seconds": plan.timeout_seconds}
        caller = _caller(known, plan.mix, samples, seed=seed, **options)
        moments = share_of_worker(arrivals(plan.profile.stages, plan.profile.arrivals, plan.seed), worker, plan.workers)
        began_at = begin.get()
        clock = clock_from(began_at)
        connections = Connections(plan.url, plan.slots, str(config.resolve().loadtest_ca_file or ""))
        guests = None
        if self.theirs:
            guests = ForeignUsers(self.environment, self.theirs, caller, plan.theirs_share, seed)
        judged = (known.oracle(), known.assets, recorder, clock, plan.timeout_seconds)
        sending = Sender(connections, *judged, guests=guests)
        stop_when_bad = plan.profile.stop_when_bad
        driving = Dispatcher(sending, guests or caller, recorder, clock, stop_when_bad=stop_when_bad, seed=seed)
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
        raise StopUser

    def _drive_callers(self, driving: Dispatcher, plan: plans.Plan, worker: int) -> None:
        began, running = 0.0, []
        for stage in plan.profile.stages:
            callers = stage.callers // plan.workers + (worker < stage.callers % plan.workers)
            if callers:
                span = (callers, began, began + stage.seconds, plan.profile.think_seconds)
                running.append(gevent.spawn(driving.closed, *span))
            began += stage.seconds
        gevent.joinall(running, raise_error=True)


class CaskCaller(FastHttpUser):
    """A person at Locust's page counts these: one caller who asks, reads the answer, thinks and asks again."""

    insecure = False
    wait_time = between(0.5, 1.5)
    network_timeout = connection_timeout = 30.0
    is_refused = False
    mix: dict[str, float]
    samples: list[pictures.Picture]
    reference: reference.Reference

    def on_start(self) -> None:
        """Each user has a chance of its own."""
        if self.is_refused:
            raise StopUser
        self._caller = _caller(self.reference, self.mix, self.samples, seed=id(self))
        self._oracle = self.reference.oracle()
        agent: Any = self.client.client
        agent.redirect_response_codes = frozenset()

    @task
    def ask(self) -> None:
        """One request of the mix; a wrong answer is a failure, too."""
        request = self._caller.next()
        name = scenarios.NAMES[request.scenario]
        for path in request.paths:
            client: Any = self.client
            with client.request(
                request.method, path, name=name, data=request.body, headers=request.headers, catch_response=True
            ) as answer:
                if request.task:
                    self._oracle.sent(request.task, request.pictures)
                if request.kind == "job" and answer.status_code == 202:
                    self._follow(request, sender.job_path(answer.content or b""))
                elif answer.status_code != 200:
                    answer.failure(f"status {answer.status_code}")
                elif request.task:
                    self._judge(answer, request, request.request_id)

    def _judge(self, answer: Any, request: scenarios.Request, request_id: str) -> None:
        body = answer.content or b""
        outcome, words = self._oracle.judge(request.task, request.pictures, request_id, body, request.kind)
        if words:
            answer.failure(f"{outcome.name.lower()}: {words}"[:120])

    def _follow(self, request: scenarios.Request, path: str) -> None:
        """Ask for a job until it is done; each time is a request of its own on Locust's page."""
        client, headers, is_open = self.client, sender.follow_headers(request), True
        while is_open:
            gevent.sleep(sender.POLL_SECONDS)
            with client.request("GET", path, name="job: how far", headers=headers, catch_response=True) as answer:
                state = (answer.json() or {}).get("state") if answer.status_code == 200 else "gone"
                is_open = state in sender.OPEN_STATES
                if state == "succeeded":
                    self._judge(answer, request, path.rpartition("/")[2])
                elif not is_open:
                    answer.failure(f"the job is {state}")
        client.request("DELETE", path, name="job: remove", headers=headers)
