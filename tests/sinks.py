"""Real servers of loopback that keep what they are sent: HTTP, and SMTP as RFC 5321 has it (the part that we need)."""

from __future__ import annotations

import contextlib
import gzip
import socketserver
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes import eventually


def _brotli(body: bytes) -> bytes:
    # Whoever sends in this form has the package.
    import brotli  # type: ignore[import-untyped,unused-ignore]

    unpacked: bytes = brotli.decompress(body)
    return unpacked


UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": _brotli,
}


@dataclass
class Post:
    """One request, its body unpacked."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpSink:
    """What came by HTTP, and how it is answered."""

    port: int = 0
    posts: list[Post] = field(default_factory=list)
    status: int = 200
    # Each answer waits for it.
    gate: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, count: int) -> list[Post]:
        """Return when so many have come."""
        eventually(lambda: len(self.posts) >= count, f"{count} requests; there are {len(self.posts)}")
        return self.posts


@dataclass
class Mail:
    """One message as it was handed over."""

    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    text: str = ""
    login: str = ""


@dataclass
class MailSink:
    """What came by SMTP."""

    port: int = 0
    mails: list[Mail] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    def wait(self, count: int) -> list[Mail]:
        """Return when so many have come."""
        eventually(lambda: len(self.mails) >= count, f"{count} mails; there are {len(self.mails)}")
        return self.mails


@contextlib.contextmanager
def http_sink() -> Iterator[HttpSink]:
    """A server that takes every POST."""
    sink = HttpSink()
    sink.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            unpack = UNPACK[self.headers.get("Content-Encoding", "")]
            sink.posts.append(
                Post(self.path, {name.title(): value for name, value in self.headers.items()}, unpack(body))
            )
            sink.gate.wait()
            with contextlib.suppress(OSError):
                self.send_response(sink.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        sink.port = port
        try:
            yield sink
        finally:
            sink.gate.set()


@contextlib.contextmanager
def mail_sink(tls: ssl.SSLContext | None = None) -> Iterator[MailSink]:
    """A mail server that takes every message, and every password; from the first byte under TLS where that is given."""
    sink = MailSink()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            mail = Mail()
            self.say("220 sink")
            while line := self.rfile.readline().decode().strip():
                word = line.split()[0].upper()
                if word == "EHLO":
                    self.say("250-sink\r\n250 AUTH PLAIN")
                elif word == "AUTH":
                    mail.login = line
                    sink.logins.append(line)
                    self.say("235 welcome")
                elif word == "DATA":
                    self.say("354 go on")
                    mail.text = self.read_text()
                    sink.mails.append(mail)
                    self.say("250 taken")
                elif word == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    if line.upper().startswith("MAIL FROM:"):
                        mail.sender = line[10:].split()[0].strip("<>")
                    elif line.upper().startswith("RCPT TO:"):
                        mail.recipients.append(line[8:].strip("<>"))
                    self.say("250 fine")

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def read_text(self) -> str:
            lines = []
            while (line := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                lines.append(line)
            return "\n".join(lines)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def finish_request(self, request: Any, client_address: Any) -> None:
            # In the thread of this caller, who may refuse our certificate.
            with contextlib.suppress(ssl.SSLError), contextlib.ExitStack() as stack:
                secured = stack.enter_context(tls.wrap_socket(request, server_side=True)) if tls else request
                super().finish_request(secured, client_address)

    with _serving(Server(("127.0.0.1", 0), Handler)) as port:
        sink.port = port
        yield sink


@contextlib.contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
