"""A stop loses nothing that was accepted."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from tests import servers
from tests.attacks.watching import tree
from tests.servers import Answer, Server

JPEG = {"Content-Type": "image/jpeg"}


def head(length: int) -> bytes:
    """The head of a request with so many bytes behind it."""
    lines = ("POST /v1/detect HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg", f"Content-Length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_what_is_under_way_is_answered_though_the_server_stops(sample_path: Path) -> None:
    """One request is still arriving over a slow line, another is in the engine."""
    # More than Apache keeps in memory: it is seen to be under way.
    image = sample_path.read_bytes() + b"\0" * 2_000_000
    answers: list[Answer] = []
    with (
        # An engine that is stopped for a while is no hang, however slow this machine.
        servers.running("test", ENGINE_HANG_SECONDS="600", REQUEST_TIMEOUT_SECONDS="120") as server,
        socket.create_connection(("127.0.0.1", server.port), 60) as connection,
    ):
        connection.sendall(head(len(image)) + image[:150_000])
        servers.wait_until(lambda: _is_arriving(server), 30, "the upload to be accepted")
        engine, caller = server.engine_pid(), threading.Thread(target=lambda: answers.append(detect(server, image)))
        servers.suspend(engine)
        caller.start()
        servers.wait_until(lambda: server.in_flight() == 1, 30, "the other to reach the app")

        server.process.send_signal(signal.SIGWINCH)
        servers.wait_until(lambda: not _listens(server), 30, "the listener to close")
        connection.sendall(image[150_000:])
        servers.resume(engine)
        uploaded = _read(connection)
        caller.join(60)

    assert uploaded.startswith(b"HTTP/1.1 200")
    assert answers[0].status == 200
    assert answers[0].json["results"][0]["detections"]


def detect(server: Server, image: bytes) -> Answer:
    return server.ask("/v1/detect", image, JPEG, timeout=60)


def test_make_stop_waits_until_it_has_ended_and_can_be_said_twice() -> None:
    with servers.running("test") as server:
        environment = servers.environment("test", STATE_DIR=str(server.state_dir), PORT=str(server.port))
        stop = [servers.ROOT / "apache" / "stop.sh"]

        first = subprocess.run(stop, env=environment, capture_output=True, text=True, timeout=60, check=False)
        second = subprocess.run(stop, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert (first.returncode, first.stdout) == (0, "Stopped.\n")
    assert second.returncode == 0
    assert "Nothing runs" in second.stdout


def test_a_resized_terminal_does_not_stop_the_server(tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    state_dir, port = servers.make_state_dir(), servers.free_port()
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [servers.ROOT / "apache" / "serve.sh"],
        env=servers.environment("test", PORT=str(port), STATE_DIR=str(state_dir)),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=own_terminal,
    )
    drain = threading.Thread(target=_drain, args=(master,), daemon=True)
    drain.start()
    server = Server(f"http://127.0.0.1:{port}", port, state_dir, process, tmp_path / "log")  # type: ignore[arg-type]
    try:
        servers.wait_until(server.is_ready, 90, "/readyz")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        end = time.monotonic() + 2
        servers.wait_until(lambda: time.monotonic() > end or not server.is_ready(), 5, "two seconds to pass")

        assert server.is_ready()

        os.write(master, b"\x03")
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        os.close(slave)
        os.close(master)


def _drain(master: int) -> None:
    try:
        while os.read(master, 65536):
            pass
    except OSError:
        return


def _listens(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), 1).close()
    except OSError:
        return False
    return True


def _is_arriving(server: Server) -> bool:
    """Whether a body is being kept by one of Apache's processes."""
    for link in (link for pid in tree(server.process.pid) for link in Path(f"/proc/{pid}/fd").glob("*")):
        with contextlib.suppress(OSError):
            if "/run/arriving/" in str(link.readlink()):
                return True
    return False


def _read(connection: socket.socket) -> bytes:
    answer = b""
    connection.settimeout(60)
    while received := connection.recv(65536):
        answer += received
    return answer
