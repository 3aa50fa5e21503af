"""`docker stop` during a request of 8 s loses none; a restart keeps the state; a killed engine is replaced."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

from tests.servers import Answer, wait_until
from tests.system import containers
from tests.system.containers import Stack

REQUEST_SECONDS = 8.0
ENGINE_SECONDS = 60.0
# Each look is a program that starts in the container.
PATIENCE_SECONDS = 60.0
IN_FLIGHT = """
import os, pathlib
from app.telemetry import metrics, shards
found = [each.series for each in shards.read(pathlib.Path(os.environ["STATE_DIR"])) if each.role == "web"]
name = metrics.IN_FLIGHT.name
print(int(sum(values[0] for series in found for key, values in series.items() if key.name == name)))
"""


def test_stop_waits_for_an_upload_of_8_seconds(own_stack: Stack) -> None:
    image, _ = containers.sample()
    began = time.monotonic()
    # Asked itself: through the edge, which waits for the whole body, it would not be under way yet.
    address = own_stack.inspect("{{json .NetworkSettings.Networks}}")[f"{own_stack.project}_back"]["IPAddress"]
    with socket.create_connection((address, own_stack.port), 60) as connection:
        connection.sendall(_head(len(image), own_stack.make_token("slow-line")))
        pieces = _pieces(image, 80)
        connection.sendall(next(pieces))

        stopping = own_stack.stop()
        wait_until(lambda: not _accepts(own_stack), PATIENCE_SECONDS, "Apache to accept no more")
        for piece in pieces:
            # Slowly, as over a bad line: the pace is the test.
            time.sleep(REQUEST_SECONDS / 80)
            connection.sendall(piece)
        answer = _read(connection)
    took = time.monotonic() - began

    containers.assert_right(answer)
    assert took >= REQUEST_SECONDS
    assert stopping.wait(60) == 0
    assert own_stack.inspect("{{json .State.ExitCode}}") == 0


def test_stop_waits_for_a_prediction_of_8_seconds(own_stack: Stack) -> None:
    image, _ = containers.sample()
    engine = own_stack.engine_pid()
    answers: list[Answer] = []
    own_stack.send("STOP", engine)
    began = time.monotonic()
    caller = threading.Thread(target=lambda: answers.append(own_stack.ask("/v1/detect", image, timeout=60)))
    caller.start()
    wait_until(lambda: bool(answers) or _app_has_a_request(own_stack), PATIENCE_SECONDS, "the request to reach the app")
    assert not answers, answers

    stopping = own_stack.stop()
    wait_until(lambda: not _accepts(own_stack), PATIENCE_SECONDS, "Apache to accept no more")
    wait_until(lambda: time.monotonic() - began >= REQUEST_SECONDS - 1, 20, "the request to be 7 s old")
    assert not answers, answers
    own_stack.send("CONT", engine)
    caller.join(60)

    containers.assert_right(answers[0])
    assert time.monotonic() - began >= REQUEST_SECONDS - 1
    assert stopping.wait(60) == 0
    assert own_stack.inspect("{{json .State.ExitCode}}") == 0


def test_killed_engine_is_said_and_replaced(stack: Stack) -> None:
    image, _ = containers.sample()
    victim = stack.engine_pid()
    seen: list[int] = []

    # Looked for meanwhile: on a busy machine the command returns after the next engine is ready.
    killing = threading.Thread(target=stack.send, args=("KILL", victim))
    killing.start()
    wait_until(lambda: _see(stack, seen) == 503, PATIENCE_SECONDS, "/readyz to say that the engine is away")
    wait_until(lambda: _see(stack, seen) == 200, ENGINE_SECONDS, "a new engine")
    killing.join(ENGINE_SECONDS)

    assert set(seen) == {200, 503}
    assert stack.engine_pid() != victim
    containers.assert_right(stack.ask("/v1/detect", image))


def test_restart_keeps_the_state(stack: Stack) -> None:
    image, _ = containers.sample()
    stack.execute("sh", "-c", "echo kept >/var/lib/cask/of-the-test")

    containers.docker("restart", "-t", "40", stack.id)
    wait_until(stack.is_ready, ENGINE_SECONDS, "/readyz after the restart")

    assert stack.execute("cat", "/var/lib/cask/of-the-test") == "kept"
    containers.assert_right(stack.ask("/v1/detect", image))


def test_down_and_up_keep_the_state(own_stack: Stack) -> None:
    own_stack.execute("sh", "-c", "echo kept >/var/lib/cask/of-the-test")
    before = own_stack.id

    own_stack.step("down")
    own_stack.step("up", BUILD="no")

    assert own_stack.id != before
    assert own_stack.execute("cat", "/var/lib/cask/of-the-test") == "kept"


def _head(length: int, token: str) -> bytes:
    lines = ("POST /v1/detect HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg", f"Content-Length: {length}")
    return "\r\n".join((*lines, f"X-Api-Token: {token}", "Connection: close")).encode() + b"\r\n\r\n"


def _pieces(data: bytes, count: int) -> Iterator[bytes]:
    size = -(-len(data) // count)
    return (data[at : at + size] for at in range(0, len(data), size))


def _read(connection: socket.socket) -> Answer:
    received = b""
    while more := connection.recv(65536):
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]) if head else 0, head, body)


def _accepts(stack: Stack) -> bool:
    """Whether Apache listens: asked inside, because the engine's proxy outside accepts for it."""
    script = f"import socket; socket.create_connection(('127.0.0.1', {stack.port}), 1)"
    return "refused" not in stack.execute("python", "-c", script, check=False)


def _app_has_a_request(stack: Stack) -> bool:
    """Whether a request is in a web process, by its own word: those for health and metrics are in another."""
    return int(stack.execute("python", "-c", IN_FLIGHT)) > 0


def _see(stack: Stack, seen: list[int]) -> int:
    status = stack.ask("/readyz", timeout=5).status
    seen.append(status)
    return status
