"""A job's end is told to allowed hosts, signed, until it was heard or too much time has passed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import SecretStr
from app.errors import OptionError
from app.jobs import webhooks
from app.jobs.store import JobStore
from app.jobs.webhooks import Message, Messenger
from tests import fakes
from tests.fakes import FakeClock
from tests.unit.jobs.conftest import add, finish_all

SECRET = "a secret of the two"  # noqa: S105 - for tests
URL = "https://ear.example/hook?x=1"


class Ear:
    """Hears every message and answers as it is told; 204 when it is told nothing."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.answers: Iterator[int | Exception] = iter(())

    def __call__(self, message: Message) -> int:
        self.heard.append(message)
        answer = next(self.answers, 204)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def messenger(store: JobStore, tmp_path: Path, clock: FakeClock, ear: Ear) -> Messenger:
    return make_messenger(store, tmp_path, ("ear.example",), clock, ear)


def make_messenger(
    store: JobStore, folder: Path, hosts: tuple[str, ...], clock: FakeClock, send: webhooks.Send | None = None
) -> Messenger:
    changes: dict[str, Any] = {"jobs_webhook_hosts": hosts, "jobs_webhook_secret": SecretStr(SECRET)}
    settings = fakes.make_settings(folder, folder / "models", **changes)
    return Messenger(store, settings, send=send, clock=clock)


def test_end_is_told_once_and_signed(store: JobStore, messenger: Messenger, ear: Ear, clock: FakeClock) -> None:
    job = add(store, webhook_url=URL)
    assert not messenger.step()
    finish_all(store)
    assert messenger.step()
    assert not messenger.step()

    (message,) = ear.heard
    document = json.loads(message.body)
    assert (document["type"], document["data"]["id"]) == ("job.succeeded", job.id)
    assert document["data"]["progress"] == {"done": 2, "failed": 0, "total": 2}
    signed = f"{message.headers['webhook-id']}.{int(clock.now)}.".encode() + message.body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert message.headers["webhook-timestamp"] == str(int(clock.now))
    assert message.headers["webhook-signature"] == f"v1,{expected}"
    told = store.get(job.id).webhook
    assert told is not None
    assert (told.state, told.attempts, told.error) == ("delivered", 1, "")


def test_signature_is_that_of_standard_webhooks() -> None:
    # The example of the specification.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
    signature = webhooks.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secret_that_only_looks_like_base64_is_taken_as_it_is() -> None:
    assert webhooks.sign("whsec_not base64!", "id", 1, b"") != webhooks.sign("whsec_another!", "id", 1, b"")


def test_failed_message_is_sent_again_with_growing_pauses_and_given_up(
    store: JobStore, messenger: Messenger, ear: Ear, clock: FakeClock
) -> None:
    job = add(store, webhook_url=URL)
    finish_all(store)
    ear.answers = iter([500, OSError("refused"), 302, 404, 500, 500, TimeoutError("late")])

    for pause in webhooks.PAUSES_SECONDS:
        assert messenger.step()
        clock.now += pause - 0.1
        assert not messenger.step()
        clock.now += 0.2
    assert messenger.step()
    clock.now += 1e6

    assert not messenger.step()
    assert len(ear.heard) == len(webhooks.PAUSES_SECONDS) + 1
    assert len({message.headers["webhook-id"] for message in ear.heard}) == 1
    told = store.get(job.id).webhook
    assert told is not None
    assert (told.state, told.attempts, told.error) == ("failed", 7, "TimeoutError: late")


def test_job_that_was_removed_is_not_told_of(store: JobStore, messenger: Messenger, ear: Ear) -> None:
    job = add(store, webhook_url=URL)
    finish_all(store)
    store.remove(job.id)

    assert not messenger.step()
    assert ear.heard == []


def test_host_that_is_allowed_no_more_is_not_asked(store: JobStore, tmp_path: Path, clock: FakeClock, ear: Ear) -> None:
    job = add(store, webhook_url=URL)
    finish_all(store)
    make_messenger(store, tmp_path, (), clock, ear).step()

    assert ear.heard == []
    told = store.get(job.id).webhook
    assert told is not None
    assert "leads to 'ear.example'" in told.error


@pytest.mark.parametrize(
    "url",
    [
        "https://ear.example",
        "http://ear.example/x",
        "https://EAR.example:443/x",
        "http://ear.example:80/x",
        "http://10.0.0.5:8080/hook",
    ],
)
def test_allowed_address_is_taken(url: str) -> None:
    webhooks.check(url, ("ear.example", "10.0.0.5:8080"))


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x",
        "https://ear.example.evil.example/",
        "https://evil.example/?ear.example",
        "https://ear.example@evil.example/",
        "https://evil.example#ear.example",
        "https://evil.example\\@ear.example/",
        "https://ear.example:8443/x",
        "http://10.0.0.5/hook",
        "http://10.0.0.5:8081/hook",
        "ftp://ear.example/x",
        "file:///etc/passwd",
        "//ear.example/x",
        "ear.example",
        "http://[::1",
        "http://ear.example:99999/",
        "http://ear.example/\r\nX-Evil: 1",
        "http://ear.example/" + "x" * 2000,
        "http://éar.example/",
        "",
    ],
)
def test_other_address_is_refused(url: str) -> None:
    with pytest.raises(OptionError, match="webhook_url"):
        webhooks.check(url, ("ear.example", "10.0.0.5:8080"))


def test_a_refusal_shows_no_password() -> None:
    with pytest.raises(OptionError, match="hidden") as refused:
        webhooks.check("https://me:secret@ear.example/hook", ("ear.example",))

    assert "secret" not in str(refused.value)


# ── a real receiver ──────────────────────────────────────────────────────────────────────────────────────────────────


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what it hears; sends the first caller elsewhere."""

    heard: list[tuple[str, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append((self.path, dict(self.headers), body))
        self.send_response(307 if len(self.heard) == 1 else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[http.server.ThreadingHTTPServer]:
    Receiver.heard = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_real_receiver_hears_it_and_no_redirect_is_followed(
    store: JobStore, tmp_path: Path, clock: FakeClock, receiver: http.server.ThreadingHTTPServer, monkeypatch: Any
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    place = f"127.0.0.1:{receiver.server_address[1]}"
    job = add(store, webhook_url=f"http://{place}/hook?a=b")
    finish_all(store)
    messenger = make_messenger(store, tmp_path, (place,), clock)

    messenger.look()
    fakes.eventually(lambda: store.get(job.id).webhook.attempts == 1, "the first try")  # type: ignore[union-attr]
    assert store.get(job.id).webhook.error == "it answered 307"  # type: ignore[union-attr]
    clock.now += 6
    fakes.eventually(lambda: not messenger._threads, "the thread to end")
    messenger.look()
    fakes.eventually(
        lambda: store.get(job.id).webhook.state == "delivered",  # type: ignore[union-attr]
        "the second try",
    )

    assert [path for path, _, _ in Receiver.heard] == ["/hook?a=b"] * 2
    assert json.loads(Receiver.heard[1][2])["type"] == "job.succeeded"


# ── one receiver's trouble is not another's ──────────────────────────────────────────────────────────────────────────


def test_a_receiver_that_is_slow_holds_up_no_other(store: JobStore, tmp_path: Path, clock: FakeClock) -> None:
    jobs = []
    for url in ("https://slow.example/a", "https://SLOW.example/b", URL):
        jobs.append(add(store, 1, webhook_url=url))
        finish_all(store)
        clock.now += 1
    is_begun, may_end, heard = threading.Event(), threading.Event(), list[str]()

    def send(message: Message) -> int:
        heard.append(message.url)
        if "slow" in message.url.lower():
            is_begun.set()
            assert may_end.wait(30)
        return 204

    messenger = make_messenger(store, tmp_path, ("slow.example", "ear.example"), clock, send)
    thread = threading.Thread(target=messenger.step)
    thread.start()
    assert is_begun.wait(30)
    assert messenger.step()
    assert not messenger.step()
    may_end.set()
    thread.join()
    assert messenger.step()

    assert [store.get(job.id).webhook.state for job in jobs] == ["delivered"] * 3  # type: ignore[union-attr]
    assert heard[1] == URL


def test_a_message_put_off_before_the_clock_was_set_back_is_sent(
    store: JobStore, messenger: Messenger, ear: Ear, clock: FakeClock
) -> None:
    add(store, 1, webhook_url=URL)
    finish_all(store)
    ear.answers = iter([500])
    assert messenger.step()
    clock.now -= 86_400

    assert store.has_due_webhook
    assert messenger.step()


def test_a_receiver_that_drips_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                for letter in b"HTTP/1.1 204 No Content" * 100:
                    connection.sendall(bytes([letter]))
                    threading.Event().wait(0.05)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        with pytest.raises(TimeoutError, match=r"no whole answer within 0\.5 s"):
            webhooks.post(Message(f"http://127.0.0.1:{port}/", b"{}", {}), timeout_seconds=0.5)
        thread.join(30)
