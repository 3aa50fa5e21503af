"""Which settings suit this machine? Serves with one candidate after another and keeps what answers more."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app import config
from loadtest import guard, summary
from loadtest.guard import target_of
from loadtest.pictures import ROOT
from loadtest.statuses import LoadTestError, Status

# A candidate must be better by this share, or the setting stays: less is noise of so short a run.
BETTER_BY = 0.05
START_SECONDS = 120.0
STOP_SECONDS = 60.0
LOCAL_FILE = ROOT / config.LOCAL_FILE
CALLERS_PER_CORE = 8


@dataclass(frozen=True)
class Tried:
    """One candidate: the settings that differ, right answers a second, and p95 of the answered in milliseconds."""

    changed: dict[str, str]
    right_rps: float
    p95_ms: float | None


Measure = Callable[[Mapping[str, str]], Tried]


def candidates(cores: int) -> dict[str, list[str]]:
    """What is tried, setting by setting; each with the best of the earlier ones."""
    threads = sorted({1, cores})
    return {
        "ENGINE_WORKERS": [str(number) for number in sorted({1, cores, cores + 1})],
        "ENGINE_TORCH_THREADS": [str(number) for number in threads],
        "ENGINE_MAX_BATCH_SIZE": ["1", "4", "8", "16"],
        "WEB_PROCESSES": [str(number) for number in sorted({1, cores, 2 * cores})],
        "WEB_THREADS": ["8", "16", "32"],
    }


def choose(table: Mapping[str, list[str]], measure: Measure, tell: Callable[[Tried], None]) -> tuple[Tried, Tried]:
    """The settings as they are, and the best that was found, one setting after another."""
    first = best = measure({})
    tell(first)
    for name, values in table.items():
        for value in values:
            tried = measure({**best.changed, name: value})
            tell(tried)
            if tried.right_rps > best.right_rps * (1 + BETTER_BY):
                best = tried
    if not best.changed:
        return first, best
    # Once more, side by side: others on this machine may have made the one look slow or the other look quick.
    first, best = measure({}), measure(best.changed)
    tell(first)
    tell(best)
    return (first, best) if best.right_rps > first.right_rps * (1 + BETTER_BY) else (first, first)


def write(changed: Mapping[str, str], path: Path = LOCAL_FILE) -> None:
    """Put settings into env/local.env: a line that is there is replaced, others stay as they are."""
    own = ["# This machine's own values; written by make tune."]
    lines = path.read_text("utf-8-sig").splitlines() if path.exists() else own
    for name, value in changed.items():
        place = next((n for n, line in enumerate(lines) if re.match(rf"{name}=", line)), None)
        if place is None:
            lines.append(f"{name}={value}")
        else:
            lines[place] = f"{name}={value}"
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    new.replace(path)


def main(seconds: float, confirmed: str, is_written: bool) -> Status:
    """Try, print, and write the better values when asked. Raises LoadTestError when serving does not start."""
    settings = config.resolve()
    # It serves by itself, on loopback, but it loads this machine: whoever may not load it may not tune it.
    guard.admit(settings, confirmed=confirmed, ask=input if sys.stdin.isatty() else None)
    cores = len(os.sched_getaffinity(0))

    def measure(changed: Mapping[str, str]) -> Tried:
        with _serving(settings, changed) as url:
            return _ask(settings.env, url, changed, cores, seconds)

    first, best = choose(candidates(cores), measure, _tell)
    print(render(first, best))
    if is_written and best.changed:
        write(best.changed)
        print(f"Written to {config.LOCAL_FILE}. Next: make stop, then make serve ENV={settings.env}")
    elif best.changed:
        print("Nothing was written. To do so: the same command with WRITE=yes")
    return Status.PASS


def render(first: Tried, best: Tried) -> str:
    """Before and after, for a terminal."""
    rows = [["", "right a second", "p95", "settings"]]
    for name, tried in (("as it is", first), ("best", best)):
        rows.append([name, f"{tried.right_rps:.1f}", _p95(tried), _words(tried.changed)])
    return "\n".join(["", *summary.table(rows)])


def _tell(tried: Tried) -> None:
    print(f"  {tried.right_rps:8.1f}/s  p95 {_p95(tried):<10} {_words(tried.changed)}", flush=True)


def _p95(tried: Tried) -> str:
    return "no answer" if tried.p95_ms is None else f"{tried.p95_ms:.0f} ms"


def _words(changed: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in changed.items()) or "as they are"


@contextlib.contextmanager
def _serving(settings: config.Settings, changed: Mapping[str, str]) -> Iterator[str]:
    """The service with these settings, on loopback, with a state of its own and the models built for this machine."""
    # Short, and open to the service user.
    state = Path(tempfile.mkdtemp(prefix="cask-tune-"))
    state.chmod(0o755)
    if (settings.state_dir / "built").is_dir():
        (state / "built").symlink_to(settings.state_dir / "built")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mine = {
        "PORT": str(port),
        "LISTEN_HOST": "127.0.0.1",
        "HTTPS_PORT": "0",
        "STATE_DIR": str(state),
        "RELOAD": "false",
        # What builds in the background takes cores from what is measured.
        "MODEL_BUILD": "off",
        # Its state is new and has no tokens; nobody but this reaches it.
        "AUTHENTICATION": "off",
    }
    mine |= {"ENV": settings.env, "CASK_ANNOUNCE": "no", "ENGINE_MODE": "service", **changed}
    with (state / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [ROOT / "apache" / "serve.sh"],
            cwd=ROOT,
            env={**os.environ, **mine},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(server, url, state / "server.log")
        yield url
    finally:
        # SIGWINCH lets Apache finish what it has begun.
        server.send_signal(signal.SIGWINCH)
        server.wait(STOP_SECONDS)
        shutil.rmtree(state, ignore_errors=True)


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(LoadTestError):
            guard.fetch(target_of(url), "/readyz")
            return
        time.sleep(0.1)
    lines = log.read_text(errors="replace").splitlines()
    raise LoadTestError(
        f"the service does not get ready with these settings: {lines[-1] if lines else 'it said nothing'}"
    )


def _ask(env: str, url: str, changed: Mapping[str, str], cores: int, seconds: float) -> Tried:
    with tempfile.TemporaryDirectory(prefix="cask-tune-run-") as folder:
        # Callers who wait show what is answered at most; and each is let in, so that none is refused for the others.
        words = ["run", "--mix", "api", "--model", "closed", "--callers", str(CALLERS_PER_CORE * cores)]
        words += ["--seconds", f"{seconds:g}", "--slo", "relaxed", "--folder", f"{folder}/run", "--confirm", env]
        done = subprocess.run(
            [sys.executable, "-m", "loadtest", *words],
            cwd=ROOT,
            env={**os.environ, "ENV": env, "LOADTEST_HOST": url},
            capture_output=True,
            text=True,
            check=False,
        )
        path = Path(folder) / "run" / "verdict.json"
        if not path.exists():
            raise LoadTestError(f"a candidate could not be measured: {done.stderr.strip()[-300:]}")
        figures = json.loads(path.read_text())["figures"]
    return Tried(dict(changed), figures["right_rps"] or 0.0, figures["service_ms"]["p95"])
