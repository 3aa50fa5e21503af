"""A caller that asks on at once when refused has to wait, however it asks; others need not. Apache with our module."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests import bare_apache, servers

# As mod_arrivals.c has them, but for the first, which is so small that a busy machine reaches it.
REFUSALS = 40
REST_SECONDS = 0.25
MOST_REST_SECONDS = 2.0
# It takes some ten, and longer where a busy machine holds up those who ask.
IN_VAIN_SECONDS = 40
# As many refusals as there may be in a second are for nothing; as many more take one.
PACED_SECONDS = 0.9
AT_ONCE_TIMES = 6
THREADS = 8
CHILDREN = 2
PROXY = "127.0.4.9"
# Apache itself ends a connection with 503, and keeps it with 429.
REFUSED, LIMITED, ANSWERED, HEALTH = "/refused", "/limited", "/answered", "/livez"
# Behind it is nobody, so it is refused when the body is here. One of so many bytes costs as much as 17 refusals.
READ, READ_BYTES = "/read", 1 << 22
CONFIGURATION = f"""
LoadModule alias_module ${{MODULES}}/mod_alias.so
LoadModule proxy_module ${{MODULES}}/mod_proxy.so
LoadModule proxy_http_module ${{MODULES}}/mod_proxy_http.so
ServerLimit {CHILDREN}
StartServers {CHILDREN}
ThreadLimit {THREADS}
ThreadsPerChild {THREADS}
MaxRequestWorkers {CHILDREN * THREADS}
MaxSpareThreads {CHILDREN * THREADS}
AsyncRequestWorkerFactor 40
# Far longer than it takes to hammer, on a busy machine too.
KeepAliveTimeout 60
ArrivalsHeadSeconds 60
ArrivalsMaxWaitingAnAddress 1000
ArrivalsRefusals {REFUSALS}
ArrivalsMaxHeldBack {THREADS // 2}
ArrivalsUncapped {PROXY}
RemoteIPHeader X-Forwarded-For
RemoteIPInternalProxy {PROXY}
Redirect 503 {REFUSED}
Redirect 429 {LIMITED}
ArrivalsFolder {{home}}
ArrivalsMaxBytes 100000000
ArrivalsMaxBodies 60
ArrivalsMaxBodiesAnAddress 60
ProxyPass {READ} http://127.0.0.1:1
"""


@dataclass
class Apache:
    """It refuses one address and answers another."""

    port: int

    def connect(self, source: str) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=(source, 0))

    def ask_anew(self, source: str, path: str = REFUSED, forwarded: str = "") -> float:
        """Seconds to an answer, on a connection of its own."""
        began = time.monotonic()
        with contextlib.closing(self.connect(source)) as connection:
            ask(connection, path, forwarded)
        return time.monotonic() - began

    def hammer(self, source: str, forwarded: str = "") -> float:
        """Ask on and on by new connections, for twice as many refusals as are for nothing; the seconds that it took."""
        began = time.monotonic()
        for _ in range(2 * REFUSALS):
            self.ask_anew(source, REFUSED, forwarded)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def apache() -> Iterator[Apache]:
    with bare_apache.running(CONFIGURATION) as found:
        for path in (ANSWERED, HEALTH):
            (found.home / "files" / path[1:]).write_text("answered\n")
        yield Apache(found.port)


def ask(connection: http.client.HTTPConnection, path: str, forwarded: str = "") -> int:
    connection.request("GET", path, headers={"X-Forwarded-For": forwarded} if forwarded else {})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == {REFUSED: 503, LIMITED: 429, ANSWERED: 200, HEALTH: 200}[path]
    return answer.status


def seconds(connection: http.client.HTTPConnection, path: str) -> float:
    began = time.monotonic()
    ask(connection, path)
    return time.monotonic() - began


def test_a_refusal_counts_for_more_where_much_was_read(apache: Apache) -> None:
    """The first test: one that many addresses hammered before would make each refusal count for more."""

    def refuse(_: int) -> None:
        with contextlib.closing(apache.connect("127.0.4.11")) as connection:
            connection.request("POST", READ, bytes(READ_BYTES))
            assert connection.getresponse().status == 503

    def rests() -> bool:
        """After a tenth of the refusals that are for nothing."""
        with ThreadPoolExecutor(REFUSALS // 10) as callers:
            list(callers.map(refuse, range(REFUSALS // 10)))
        return apache.ask_anew("127.0.4.11", ANSWERED) > REST_SECONDS

    # A busy machine may take longer for them than they are paid for in. All of them are half of what is for nothing.
    assert any(rests() for _ in range(5)), "no rest; was the module built (apache/modules/build.sh)?"


def test_who_opens_a_connection_for_each_request_waits_and_nobody_else(apache: Apache) -> None:
    kept = apache.connect("127.0.4.2")
    ask(kept, ANSWERED)

    assert apache.hammer("127.0.4.2") > PACED_SECONDS

    # What asks for health, from wherever: a proxy of one's own may have the address of those who hammer.
    assert apache.ask_anew("127.0.4.2", HEALTH) < REST_SECONDS
    # Another address, and a connection of the same one that is not refused, such as another's behind the same router.
    assert apache.ask_anew("127.0.4.3") < REST_SECONDS
    assert seconds(kept, ANSWERED) < REST_SECONDS
    kept.close()
    # It is forgiven soon.
    servers.wait_until(lambda: apache.ask_anew("127.0.4.2", ANSWERED) < REST_SECONDS / 2, 30, "an answer at once")


def test_connection_that_asks_on_at_once_waits(apache: Apache) -> None:
    connection = apache.connect("127.0.4.4")

    def waits() -> bool:
        took = [seconds(connection, LIMITED) for _ in range(AT_ONCE_TIMES + 2)]
        return min(took[-1], seconds(connection, ANSWERED)) > REST_SECONDS * 0.9

    with contextlib.closing(connection):
        # Until it is seen: a busy machine may come too late to ask at once.
        servers.wait_until(waits, 30, "refusals that take longer, on a connection that asks on and on")
        assert seconds(connection, ANSWERED) < REST_SECONDS


def test_connection_that_asks_on_waits_longer_each_time(apache: Apache) -> None:
    connection = apache.connect("127.0.4.7")

    def waits() -> bool:
        took = [seconds(connection, LIMITED) for _ in range(AT_ONCE_TIMES + 3)]
        return took[-1] > 2 * REST_SECONDS * 0.9

    with contextlib.closing(connection):
        servers.wait_until(waits, 30, "refusals that take twice as long as the ones before")


def test_connection_that_sends_on_without_waiting_for_answers_ends(apache: Apache) -> None:
    requests = b"GET /limited HTTP/1.1\r\nHost: a\r\n\r\n" * 100
    with socket.create_connection(("127.0.0.1", apache.port), source_address=("127.0.4.8", 0)) as line:
        line.settimeout(10)
        line.sendall(requests)
        answers = b""
        with contextlib.suppress(ConnectionResetError):
            while part := line.recv(65536):
                answers += part
    assert answers.count(b"HTTP/1.1 429 ") < 100
    assert apache.ask_anew("127.0.4.6", ANSWERED) < REST_SECONDS


def test_many_callers_of_one_address_who_ask_once_each_wait_for_a_while_only(apache: Apache) -> None:
    rested = asyncio.Event()
    in_vain = asyncio.Event()

    async def ask_once() -> None:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", apache.port, local_addr=("127.0.4.10", 0))
        writer.write(f"GET {REFUSED} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == b"503"
        writer.close()
        if time.monotonic() - began > MOST_REST_SECONDS * 0.9:
            rested.set()
        elif rested.is_set() and time.monotonic() - began < REST_SECONDS:
            in_vain.set()

    async def ask_on_time() -> None:
        """Half as many again as are for nothing, whatever becomes of those before."""
        end = time.monotonic() + IN_VAIN_SECONDS
        async with asyncio.TaskGroup() as callers:
            while not in_vain.is_set() and time.monotonic() < end:
                callers.create_task(ask_once())
                await asyncio.sleep(1 / (1.5 * REFUSALS))

    asyncio.run(ask_on_time())

    assert rested.is_set()
    assert in_vain.is_set(), "rests that bring no fewer callers go on; was the module built (apache/modules/build.sh)?"


def test_waiting_keeps_no_thread(apache: Apache) -> None:
    apache.hammer("127.0.4.5")
    lines = []
    for _ in range(CHILDREN * THREADS * 5):
        lines.append(socket.create_connection(("127.0.0.1", apache.port), source_address=("127.0.4.5", 0)))
        lines[-1].sendall(b"GET /refused HTTP/1.1\r\nHost: a\r\n\r\n")

    assert apache.ask_anew("127.0.4.6") < REST_SECONDS
    # Half of them go away meanwhile, some without another word, some as one who has said all.
    for number, line in enumerate(lines):
        if number % 4 == 0:
            line.close()
        elif number % 4 == 1:
            line.shutdown(socket.SHUT_WR)
    assert apache.ask_anew("127.0.4.6") < REST_SECONDS
    answered = [line.recv(100) for number, line in enumerate(lines) if number % 4]
    assert all(each.startswith(b"HTTP/1.1 503 ") for each in answered)
    for line in lines:
        line.close()


def test_refusal_by_a_trusted_proxy_waits_for_the_caller_that_it_names(apache: Apache) -> None:
    assert apache.hammer(PROXY, "203.0.113.7") > PACED_SECONDS

    assert apache.ask_anew(PROXY, REFUSED, "203.0.113.8") < REST_SECONDS
    assert apache.ask_anew(PROXY, ANSWERED, "203.0.113.7") < REST_SECONDS


def test_who_has_many_addresses_waits_with_them_and_nobody_else(apache: Apache) -> None:
    addresses = [f"127.0.6.{number}" for number in range(1, 8)]
    began = time.monotonic()
    # Each gets no more than is for nothing.
    for _ in range(REFUSALS):
        for address in addresses:
            apache.ask_anew(address)

    # Two thirds of them wait for their turn among 1.5 × REFUSALS a second.
    assert time.monotonic() - began > 2 * PACED_SECONDS
    assert apache.ask_anew("127.0.6.8") < REST_SECONDS
