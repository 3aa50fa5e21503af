"""A renewed certificate serves within seconds, by itself; `make reload` takes it at once and refuses a wrong one."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.telemetry import shards
from tests import servers
from tests.certificates import Authority, Pair
from tests.servers import Server

# Ten on a machine that has a free core.
PATIENCE_SECONDS = 60.0


@dataclass
class Encrypted:
    """A service with HTTPS, the authority that its callers trust, and the files that it was started with."""

    server: Server
    https_port: int
    authority: Authority
    used: Pair

    def put(self, pair: Pair) -> None:
        """As Certbot does: another file under the same name."""
        for new, old in ((pair.certificate, self.used.certificate), (pair.key, self.used.key)):
            shutil.copy(new, old.with_suffix(".new"))
            old.with_suffix(".new").rename(old)

    def reload(self) -> subprocess.CompletedProcess[str]:
        settings = {"HTTPS_PORT": str(self.https_port), "PORT": str(self.server.port)}
        settings |= {"TLS_CERTIFICATE": str(self.used.certificate), "TLS_KEY": str(self.used.key)}
        environment = servers.environment("test", STATE_DIR=str(self.server.state_dir), **settings)
        command = [sys.executable, str(servers.ROOT / "apache" / "reload.py")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)

    def pids(self) -> set[int]:
        """All processes that serve, as they themselves say."""
        return {sign.pid for sign in shards.signs(self.server.state_dir) if sign.beat}

    def ask(self, image: bytes) -> tuple[int, str]:
        """The status of a prediction by a connection of its own, and the serial number that was shown."""
        trust = ssl.create_default_context(cafile=self.authority.certificate)
        connection = http.client.HTTPSConnection("localhost", self.https_port, context=trust, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/detect", image, {"Content-Type": "image/jpeg"})
            assert isinstance(connection.sock, ssl.SSLSocket)
            shown = connection.sock.getpeercert() or {}
            answer = connection.getresponse()
            answer.read()
            return answer.status, str(shown["serialNumber"])


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Encrypted]:
    folder = servers.make_state_dir()
    authority, port = Authority(folder), servers.free_port()
    first = authority.sign("localhost")
    used = Pair(folder / "cert.pem", folder / "key.pem")
    shutil.copy(first.certificate, used.certificate)
    shutil.copy(first.key, used.key)
    settings = {"HTTPS_PORT": str(port), "TLS_CERTIFICATE": str(used.certificate), "TLS_KEY": str(used.key)}
    with servers.running("test", REQUEST_MAX_WAIT_SECONDS="60", **settings) as server:
        yield Encrypted(server, port, authority, used)


def test_a_changed_certificate_serves_without_a_lost_request(encrypted: Encrypted, sample_path: Path) -> None:
    image, seen, is_over = sample_path.read_bytes(), Counter[str](), threading.Event()

    def call() -> None:
        while not is_over.is_set():
            try:
                seen[str(encrypted.ask(image)[0])] += 1
            except OSError as error:
                seen[repr(error)] += 1

    _, before = encrypted.ask(image)
    callers = [threading.Thread(target=call, daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    encrypted.put(encrypted.authority.sign("localhost"))
    began = time.monotonic()
    servers.wait_until(lambda: encrypted.ask(image)[1] != before, PATIENCE_SECONDS, "the renewed certificate")
    seconds = time.monotonic() - began
    _, second = encrypted.ask(image)
    encrypted.put(encrypted.authority.sign("localhost"))
    done = encrypted.reload()
    _, third = encrypted.ask(image)
    is_over.set()
    for caller in callers:
        caller.join(90)

    assert done.returncode == 0, done.stderr
    assert len({before, second, third}) == 3
    assert set(seen) == {"200"}, seen
    print(f"the renewed certificate served after {seconds:.1f} s, {seen.total()} requests")
    assert "the renewed certificate in" in encrypted.server.log()
    assert metric(encrypted.server, "cask_certificate_ends_time_seconds") > time.time()
    made = list((encrypted.server.state_dir / "run" / "httpd").glob("certificate-*.pem"))
    # What serves, and what handshakes may still be reading.
    assert len(made) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in made)


def metric(server: Server, name: str) -> float:
    lines = server.ask("/metrics").body.decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("key of another", "is not the key of"),
        ("no certificate", "is no PEM file that can be used"),
        ("missing", "expected a file that exists"),
        ("expired", "has expired"),
    ],
)
def test_a_certificate_that_cannot_serve_changes_nothing(
    encrypted: Encrypted, sample_path: Path, fault: str, words: str
) -> None:
    image, right = sample_path.read_bytes(), Pair(encrypted.used.certificate, encrypted.used.key)
    kept = [path.read_bytes() for path in (right.certificate, right.key)]
    status, before = encrypted.ask(image)
    processes = encrypted.pids()
    if fault == "key of another":
        shutil.copy(encrypted.authority.sign("localhost").key, right.key)
    elif fault == "no certificate":
        right.certificate.write_text("<html>404</html>")
    elif fault == "missing":
        right.key.unlink()
    else:
        expire(right)
    done = encrypted.reload()
    for path, data in zip((right.certificate, right.key), kept, strict=True):
        path.write_bytes(data)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("FAIL: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert encrypted.ask(image) == (status, before)
    assert encrypted.pids() == processes


def expire(pair: Pair) -> None:
    """Put a pair there that ended yesterday."""
    request = pair.certificate.with_suffix(".csr")
    for command in (
        ("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", pair.key, "-out", request),
        ("x509", "-req", "-in", request, "-signkey", pair.key, "-days", "-1", "-out", pair.certificate),
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
