"""A file of a page is answered from memory, in the bytes in which Apache answered it before, or not at all.

Needs mod_kept_files.so beside the Python that runs this: apache/modules/build.sh .venv.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import bare_apache, servers
from tests.servers import Server

PATIENCE_SECONDS = 60.0
KEPT = "kept-file"
OWN = ("Date", "X-Request-Id")
UNIQUE = re.compile(r"[A-Za-z0-9@_-]{24,32}")
# A header that Apache does not heed, and that the module has not heard of: such a request goes the whole way.
UNHEARD = {"X-Unheard": "1"}
CONFIGURATION = r"""
LoadModule alias_module ${MODULES}/mod_alias.so
LoadModule mime_module ${MODULES}/mod_mime.so
LoadModule filter_module ${MODULES}/mod_filter.so
LoadModule deflate_module ${MODULES}/mod_deflate.so
LoadModule headers_module ${MODULES}/mod_headers.so
LoadModule unique_id_module ${MODULES}/mod_unique_id.so
LoadModule kept_files_module {modules}/mod_kept_files.so
TypesConfig /etc/mime.types
ServerLimit 1
StartServers 1
ThreadLimit 8
ThreadsPerChild 8
MaxRequestWorkers 8
MinSpareThreads 1
MaxSpareThreads 8
MaxKeepAliveRequests 0
KeptFilesBelow /static/
DeflateAlterETag NoChange
Alias /static/ {home}/files/
<Directory {home}/files>
    Options None
    AllowOverride None
    KeptFiles On
    # As compression.conf and files.conf.
    AddOutputFilterByType DEFLATE text/css
    Header edit ETag "^\"" "W/\""
    Header merge Vary Accept-Encoding
    Header set Cache-Control no-cache
</Directory>
Alias /other/ {home}/files/
Header always set X-Request-Id "expr=%{req_novary:X-Request-Id}" \
    "expr=req_novary('X-Request-Id') =~ m#^[A-Za-z0-9@._-]{8,64}$#"
Header always set X-Request-Id "expr=%{reqenv:UNIQUE_ID}" "expr=-z resp('X-Request-Id')"
LogFormat "%R %>s %m %U %O %{X-Request-Id}o" told
CustomLog {home}/access told
"""


@dataclass(frozen=True)
class Answer:
    """What was said of a request, but for what is each answer's own."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    id: str


class Caller:
    """One connection that stays, so one child of Apache."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        self._connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            self._connection.putheader(name.replace("_", "-"), value)
        self._connection.endheaders()
        said = self._connection.getresponse()
        body = said.read()
        headers_of_all = [(name, value) for name, value in said.getheaders() if name not in OWN]
        assert said.headers["Date"].endswith(" GMT")
        return Answer(said.status, headers_of_all, body, said.headers["X-Request-Id"])

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def caller(served: Server) -> Iterator[Caller]:
    with contextlib.closing(Caller(served.port)) as made:
        yield made


@dataclass
class Bare:
    """Apache with the module, and a folder of files."""

    caller: Caller
    home: Path
    port: int

    def write(self, name: str, content: bytes) -> None:
        """By a rename, as those who deploy do it."""
        path = self.home / "files" / name
        fresh = path.with_name(f"{name}.new")
        fresh.write_bytes(content)
        fresh.replace(path)

    def lines(self) -> list[list[str]]:
        """Handler, status, method, address, bytes and id of each request."""
        return [line.split() for line in (self.home / "access").read_text().splitlines()]

    def handler_of(self, path: str, method: str = "GET", **headers: str) -> str:
        """Who answers: KEPT, or another."""
        answer = self.caller.ask(path, method, **headers)

        def is_logged() -> bool:
            return any(line[-1] == answer.id for line in self.lines())

        servers.wait_until(is_logged, PATIENCE_SECONDS, "the line of the log")
        return next(line[0] for line in self.lines() if line[-1] == answer.id)

    def keep(self, path: str, method: str = "GET", **headers: str) -> None:
        """Ask until it is answered from memory. A file that has just been changed is not kept yet."""
        kept = f"{path} from memory"
        servers.wait_until(lambda: self.handler_of(path, method, **headers) == KEPT, PATIENCE_SECONDS, kept)


@pytest.fixture(scope="module")
def bare() -> Iterator[Bare]:
    home = servers.make_state_dir()
    (home / "files").mkdir()
    (home / "files" / "a.css").write_bytes(b"a { color: red }\n" * 40)
    (home / "files" / "large.css").write_bytes(b"x" * 300_000)
    configuration = CONFIGURATION.replace("{modules}", str(bare_apache.MODULES))
    with bare_apache.running(configuration, home) as apache, contextlib.closing(Caller(apache.port)) as made:
        yield Bare(made, home, apache.port)


def conditions(caller: Caller, path: str) -> dict[str, dict[str, str]]:
    """What callers say who have the file already."""
    said = dict(caller.ask(path).headers)
    tag, since = {"If-None-Match": said["ETag"]}, {"If-Modified-Since": said["Last-Modified"]}
    return {"": {}, "tag": tag, "since": since, "both": tag | since, "another": {"If-None-Match": 'W/"other"'}}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("accepts", ["", "gzip", "gzip, deflate, br, zstd", "identity", "br;q=1, gzip;q=0"])
@pytest.mark.parametrize("path", ["/static/site.css", "/static/js/answer.js", "/static/favicon.svg"])
def test_each_answer_is_that_of_apache(caller: Caller, path: str, accepts: str, method: str) -> None:
    for name, said in conditions(caller, path).items():
        for kept in ({}, {"Connection": "keep-alive"}):
            headers = said | kept | ({"Accept-Encoding": accepts} if accepts else {})
            by_apache = caller.ask(path, method, **headers, **UNHEARD)
            answers = [caller.ask(path, method, **headers) for _ in range(3)]

            assert by_apache.status == (200 if name in ("", "another") else 304)
            for answer in answers:
                assert (answer.status, answer.headers, answer.body) == (
                    by_apache.status,
                    by_apache.headers,
                    by_apache.body,
                )
            assert len({answer.id for answer in (by_apache, *answers)}) == 4


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-9"},
        {"Origin": "https://elsewhere.example"},
        {"If-Match": '"other"'},
        {"If-Unmodified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
        {"X-Forwarded-Proto": "https"},
        {"Content-Length": "0"},
    ],
    ids=str,
)
def test_what_is_asked_otherwise_is_apaches(caller: Caller, headers: dict[str, str]) -> None:
    caller.ask("/static/site.css")

    one, other = caller.ask("/static/site.css", **headers), caller.ask("/static/site.css", **headers, **UNHEARD)

    assert (one.status, one.headers) == (other.status, other.headers)
    assert one.status == {"Range": 206, "If-Match": 412, "If-Unmodified-Since": 412}.get(next(iter(headers)), 200)


def test_other_methods_are_refused_and_missing_files_are_none(caller: Caller) -> None:
    for _ in range(2):
        assert caller.ask("/static/site.css").status == 200
        assert caller.ask("/static/site.css", "OPTIONS").status == 200
        assert caller.ask("/static/site.css", "POST", Content_Length="0").status == 405
        assert caller.ask("/static/none.css").status == 404
        assert caller.ask("/static/site.css/more").status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_asked_again_comes_from_memory(bare: Bare, method: str) -> None:
    bare.keep("/static/a.css", method)
    bare.keep("/static/a.css", method, Accept_Encoding="gzip")

    packed = bare.caller.ask("/static/a.css", Accept_Encoding="gzip")
    tag = dict(packed.headers)["ETag"]
    bare.keep("/static/a.css", method, Accept_Encoding="gzip", If_None_Match=tag)
    answer = bare.caller.ask("/static/a.css", method, Accept_Encoding="gzip", If_None_Match=tag)

    assert gzip.decompress(packed.body) == bare.caller.ask("/static/a.css").body
    assert (answer.status, answer.body) == (304, b"")


def test_its_line_of_the_log_is_as_before(bare: Bare) -> None:
    bare.keep("/static/a.css")
    answer, unheard = bare.caller.ask("/static/a.css"), bare.caller.ask("/static/a.css", **UNHEARD)

    servers.wait_until(lambda: bare.lines()[-1][-1] == unheard.id, PATIENCE_SECONDS, "the line of the log")
    kept, whole = bare.lines()[-2:]

    assert (kept[0], kept[-1]) == (KEPT, answer.id)
    assert whole[0] != KEPT
    assert kept[1:-1] == whole[1:-1]


@pytest.mark.parametrize("own", ["12345678", "a" * 64, "short", "a" * 65, "with a space", "<script>alert</script>"])
def test_an_id_of_the_callers_is_said_where_it_is_harmless(bare: Bare, own: str) -> None:
    bare.keep("/static/a.css")

    said = bare.caller.ask("/static/a.css", X_Request_Id=own).id

    assert said == bare.caller.ask("/static/a.css", X_Request_Id=own, **UNHEARD).id or UNIQUE.fullmatch(said)
    assert (said == own) == bool(re.fullmatch(r"[A-Za-z0-9@._-]{8,64}", own))


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/static/a.css?a=1", {}),
        ("/static/%61.css", {}),
        ("/static//a.css", {}),
        ("/static/./a.css", {}),
        ("/other/a.css", {}),
        ("/static/large.css", {}),
        ("/static/a.css", UNHEARD),
        ("/static/a.css", {"Accept-Encoding": "gzip;q=0.5"}),
        ("/static/a.css", {"If-None-Match": '"other"'}),
        ("/static/a.css", {"If-Modified-Since": "Tue, 01 Jan 2036 00:00:00 GMT"}),
    ],
)
def test_nothing_else_is_kept(bare: Bare, path: str, headers: dict[str, str]) -> None:
    bare.keep("/static/a.css")

    assert KEPT not in {bare.handler_of(path, **headers) for _ in range(3)}


def test_a_connection_that_is_to_end_does(bare: Bare) -> None:
    bare.keep("/static/a.css")
    with contextlib.closing(Caller(bare.port)) as other:
        answer = other.ask("/static/a.css", Connection="close")

        assert dict(answer.headers)["Connection"] == "close"
        assert answer.body == bare.caller.ask("/static/a.css").body


def test_a_changed_file_is_seen_and_one_that_is_gone_too(bare: Bare) -> None:
    bare.write("b.css", b"first")
    bare.keep("/static/b.css")
    path = bare.home / "files" / "b.css"
    before = path.stat()

    def becomes(what: Callable[[Answer], bool]) -> None:
        servers.wait_until(lambda: what(bare.caller.ask("/static/b.css")), PATIENCE_SECONDS, "another answer")

    # As many bytes and of the same time: only the file system knows.
    path.write_bytes(b"again")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    becomes(lambda answer: answer.body == b"again")
    bare.write("b.css", b"third")
    becomes(lambda answer: answer.body == b"third")
    path.unlink()
    becomes(lambda answer: answer.status == 404)
    path.symlink_to(bare.home / "files" / "a.css")
    becomes(lambda answer: answer.status == 403)


def test_one_that_is_just_being_changed_is_not_kept(bare: Bare) -> None:
    began = time.monotonic()
    bare.write("c.css", b"new")

    handlers = {bare.handler_of("/static/c.css") for _ in range(3)}

    assert KEPT not in handlers or time.monotonic() - began > 1


def test_there_is_room_for_some_only(bare: Bare) -> None:
    """40 files of 250 kB are more than a child keeps: those that came first are asked for anew."""
    for n in range(40):
        (bare.home / "files" / f"{n}.css").write_bytes(bytes([65 + n]) * 250_000)
    bare.keep("/static/39.css")
    bare.caller.ask("/static/0.css")
    assert bare.handler_of("/static/0.css") == KEPT

    for n in range(40):
        assert bare.caller.ask(f"/static/{n}.css").body == bytes([65 + n]) * 250_000

    assert bare.handler_of("/static/0.css") != KEPT
    assert bare.handler_of("/static/0.css") == KEPT
