"""Who is told of errors: once in a span, off the caller's path, and nothing that callers sent."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import __version__
from app.config import SecretStr
from app.telemetry import alerts, logs, metrics
from app.telemetry.alerts import Once, Sender
from app.telemetry.channels import webhook
from app.telemetry.shards import MetricsShard
from tests import fakes
from tests.servers import ROOT
from tests.sinks import HttpSink, http_sink

log = logging.getLogger("cask.test")
TOKEN = "ck_7f3k9aQx2mZp4vRt8bNw1cLd6hJs5gYe0uKi"  # noqa: S105 - made up
SENDERS: list[Sender] = []
IMAGE = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(120, 256))


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    """Takes what is posted."""
    with http_sink() as found:
        yield found


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    """Each test counts from nothing, and nothing of it is sent later, when another one counts."""
    metrics._use(MetricsShard.in_memory())
    yield
    while SENDERS:
        assert SENDERS.pop().flush(fakes.PATIENCE_SECONDS)
    metrics._use(MetricsShard.in_memory())


def tell(tmp_path: Path, **changes: Any) -> Sender:
    """Alerts of this process go where the settings say."""
    settings = fakes.make_settings(tmp_path, tmp_path, log_level="info", **changes)
    logs.configure(settings, "web")
    sender = alerts.configure(settings, "web")
    assert sender is not None
    SENDERS.append(sender)
    return sender


def to_webhook(tmp_path: Path, sink: HttpSink, **changes: Any) -> Sender:
    return tell(tmp_path, alerts_webhook_url=SecretStr(sink.url + "/services/x"), **changes)


def fail(request_id: str = "") -> None:
    """Log an unexpected failure with what a caller sent among its words and variables."""
    image, token = IMAGE, TOKEN
    logs.request_id.set(request_id)
    try:
        raise ValueError(f"cannot read {image!r} for {token}")
    except ValueError:
        log.exception("unexpected failure for %s", token)
    finally:
        logs.request_id.set("")


def repeat() -> None:
    log.error("the same again")


def outcomes(channel: str) -> dict[str, float]:
    series = [(dict(labels), values[at]) for labels, (values, at) in metrics.ALERTS._series.items()]
    rows = {labels["outcome"]: value for labels, value in series if labels["channel"] == channel}
    return {outcome: count for outcome, count in rows.items() if count}


def test_an_error_reaches_the_webhook_as_slack_takes_it(tmp_path: Path, sink: HttpSink) -> None:
    to_webhook(tmp_path, sink)

    log.warning("only a warning")
    fail("request-4711")

    post = sink.wait(1)[0]
    text = json.loads(post.body)["text"]
    assert (post.path, post.headers["Content-Type"]) == ("/services/x", "application/json")
    assert "ERROR on localhost (test), web" in text
    assert "unexpected failure" in text
    assert "request-4711" in text
    assert TOKEN not in text
    assert len(sink.posts) == 1


def test_the_same_fault_is_told_once_and_then_with_its_count(tmp_path: Path, sink: HttpSink) -> None:
    sender, clock = to_webhook(tmp_path, sink, alerts_repeat_seconds=60.0), fakes.FakeClock()
    sender._once.clock = clock

    for _ in range(40):
        repeat()
    assert sender.flush(fakes.PATIENCE_SECONDS)
    assert len(sink.posts) == 1
    clock.now += 61
    log.error("another")
    assert sender.flush(fakes.PATIENCE_SECONDS)

    # Nobody logged it again, and all the same its count is told once the span is over.
    assert [("more since" in json.loads(post.body)["text"]) for post in sink.posts] == [False, False, True]
    assert "(39 more since it was last told)" in json.loads(sink.posts[2].body)["text"]
    assert outcomes("webhook") == {"sent": 3, "held": 39}


def test_a_count_is_told_by_itself_when_the_span_is_over(tmp_path: Path, sink: HttpSink) -> None:
    sender = to_webhook(tmp_path, sink, alerts_repeat_seconds=1.0)
    # Until another process has seen it too, however long that takes.
    sink.gate.clear()
    repeat()
    sink.wait(1)
    Once(tmp_path / alerts.FOLDER, 3600.0).take(next(iter(sender._again)))
    sink.gate.set()

    assert "(1 more since it was last told)" in json.loads(sink.wait(2)[1].body)["text"]


def test_all_processes_together_tell_a_fault_once(tmp_path: Path, sink: HttpSink) -> None:
    code = (
        "import sys, logging; from pathlib import Path; from app.config import SecretStr;"
        "from tests import fakes; from app.telemetry import alerts, logs;"
        "folder, url = Path(sys.argv[1]), SecretStr(sys.argv[2]);"
        "settings = fakes.make_settings(folder, folder, alerts_webhook_url=url);"
        # A busy machine is no failure.
        f"alerts.FLUSH_SECONDS = {fakes.PATIENCE_SECONDS};"
        "logs.configure(settings, 'web'); alerts.configure(settings, 'web');"
        "[logging.getLogger('cask.test').error('lost') for _ in range(3)]"
    )
    command = [sys.executable, "-c", code, str(tmp_path), sink.url]
    children = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(3)]

    # Each of them ends at once, and what it has to tell is sent before.
    assert [child.wait(fakes.PATIENCE_SECONDS) for child in children] == [0, 0, 0]
    assert len(sink.posts) == 1


def test_what_a_process_could_not_send_before_its_end_is_told_by_the_next(
    tmp_path: Path, sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(webhook, "SEND_SECONDS", fakes.PATIENCE_SECONDS)
    ending, other = to_webhook(tmp_path, sink), Once(tmp_path / alerts.FOLDER, 3600.0)
    sink.gate.clear()
    repeat()
    sink.wait(1)
    fault = next(iter(ending._again))
    assert other.take(fault) is None

    ending.end()

    assert other.take(fault) == 0
    assert other.take(fault) is None
    sink.gate.set()
    # One that has sent all gives nothing back.
    assert ending.flush(fakes.PATIENCE_SECONDS)
    ending.end()
    assert other.take(fault) is None


def test_a_slow_receiver_keeps_nobody_and_what_is_too_much_is_dropped(tmp_path: Path, sink: HttpSink) -> None:
    sender = to_webhook(tmp_path, sink)
    sink.gate.clear()
    repeat()
    sink.wait(1)

    began = time.thread_time()
    for _ in range(alerts.MAX_WAITING + 50):
        repeat()
    took = time.thread_time() - began
    assert not sender.flush(0.05)
    sink.gate.set()

    assert sender.flush(fakes.PATIENCE_SECONDS)
    assert outcomes("webhook") == {"sent": 1, "held": alerts.MAX_WAITING, "dropped": 50}
    assert took < 1


def test_a_receiver_that_refuses_is_counted_and_told_of_in_the_log_only(
    tmp_path: Path, sink: HttpSink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.status = 500
    sender = to_webhook(tmp_path, sink)
    logging.getLogger().addHandler(caplog.handler)

    repeat()
    assert sender.flush(fakes.PATIENCE_SECONDS)

    assert outcomes("webhook") == {"failed": 1}
    assert "could not be sent by webhook: HTTPError" in caplog.text


def test_sentry_gets_the_stack_and_nothing_that_callers_sent(tmp_path: Path, sink: HttpSink) -> None:
    sender = tell(tmp_path, sentry_dsn=SecretStr(f"http://key@127.0.0.1:{sink.port}/7"))

    fail("request-4711")
    assert sender.flush(fakes.PATIENCE_SECONDS)

    post = sink.wait(1)[0]
    event = json.loads(post.body.splitlines()[2])
    frames = event["exception"]["values"][0]["stacktrace"]["frames"]
    assert post.path == "/api/7/envelope/"
    assert (event["environment"], event["release"], event["tags"]["request_id"]) == (
        "test",
        f"cask@{__version__}",
        "request-4711",
    )
    assert frames[-1]["function"] == "fail"
    assert not any("vars" in frame for frame in frames)
    assert TOKEN.encode() not in post.body
    assert b"xff" not in post.body and b"xfe" not in post.body
    assert len(sink.posts) == 1


def test_without_settings_nothing_is_told_and_nothing_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests import fakes; from app.telemetry import alerts;"
        "print(alerts.configure(fakes.make_settings(Path(sys.argv[1]), Path(sys.argv[1])), 'web'),"
        " [n for n in ('sentry_sdk', 'app.telemetry.channels') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)

    assert done.stdout == b"None []\n"


def test_a_clock_that_was_set_back_holds_no_alert(tmp_path: Path) -> None:
    once = Once(tmp_path, 60.0)
    assert once.take("fault") == 0
    assert once.take("fault") is None
    path = next(tmp_path.iterdir())
    path.write_text(json.dumps({"told": time.time() + 10_000, "held": 1}))

    assert once.take("fault") == 1


def test_a_file_that_cannot_be_read_tells_rather_twice_than_never(tmp_path: Path) -> None:
    once = Once(tmp_path, 60.0)
    once.take("fault")
    next(tmp_path.iterdir()).write_text("not json")
    assert once.take("fault") == 0
    (tmp_path / "file").write_text("")
    assert Once(tmp_path / "file", 60.0).take("fault") == 0
