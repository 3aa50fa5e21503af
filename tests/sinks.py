"""A real server of loopback that keeps what it is sent by HTTP."""

from __future__ import annotations

import contextlib
import gzip
import socketserver
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
