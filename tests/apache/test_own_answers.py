"""What Apache answers by itself is a problem document of ours, whatever was wrong with the request."""

from __future__ import annotations

import http.client
import io
import json
from typing import Any

import pytest

from tests.apache.test_arrivals import ask
from tests.servers import Server

END = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
POST = b"POST /v1/detect" + END
LONG = b"x" * 300

REFUSED = {
    "range": (b"GET /static/site.css" + END + b"Range: bytes=99999999-\r\n\r\n", 416, "range_unsatisfiable"),
    "range of an asset": (
        b"GET /docs/assets/swagger-ui.css" + END + b"Range: bytes=9999999-\r\n\r\n",
        416,
        "range_unsatisfiable",
    ),
    "another asset": (
        b"GET /docs/assets/swagger-ui.css" + END + b'If-Match: "x"\r\n\r\n',
        412,
        "precondition_failed",
    ),
    "another file": (b"GET /static/site.css" + END + b'If-Match: "x"\r\n\r\n', 412, "precondition_failed"),
    "a changed file": (
        b"GET /static/site.css" + END + b"If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT\r\n\r\n",
        412,
        "precondition_failed",
    ),
    "another description": (b"GET /openapi.json" + END + b'If-Match: "x"\r\n\r\n', 412, "precondition_failed"),
    "expect": (b"GET /livez" + END + b"Expect: banana\r\n\r\n", 417, "expectation_unknown"),
    "expect with a body": (POST + b"Expect: 100-later\r\nContent-Length: 3\r\n\r\nabc", 417, "expectation_unknown"),
    "HTTP/2.0": (b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "version_unsupported"),
    "HTTP/3.7": (b"GET /static/site.css HTTP/3.7\r\nHost: localhost\r\n\r\n", 505, "version_unsupported"),
    "HTTP/0.9": (b"GET /livez\r\n", 400, "bad_request"),
    "no version": (b"GET /livez HTTP\r\n\r\n", 400, "bad_request"),
    "coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "transfer_coding_unknown"),
    "coding at the end": (POST + b"Transfer-Encoding: gzip\r\n\r\nabc", 400, "bad_request"),
    "method": (b"BREW /v1/detect" + END + b"\r\n", 501, "method_unknown"),
    "lower case": (b"get /livez" + END + b"\r\n", 501, "method_unknown"),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 501, "method_unknown"),
    "post a file": (b"POST /static/site.css" + END + b"Content-Length: 0\r\n\r\n", 405, "method_not_allowed"),
    "put a file": (b"PUT /static/new.css" + END + b"Content-Length: 3\r\n\r\nabc", 405, "method_not_allowed"),
    "delete a file": (b"DELETE /%73tatic//site.css" + END + b"\r\n", 405, "method_not_allowed"),
    "list files": (b"PROPFIND /static/" + END + b"\r\n", 405, "method_not_allowed"),
    "trace": (b"TRACE /v1/models" + END + b"\r\n", 405, "method_not_allowed"),
    "connect": (b"CONNECT localhost:443" + END + b"\r\n", 405, "method_not_allowed"),
    "a folder": (b"GET /static/css" + END + b"\r\n", 404, "not_found"),
    "a long name": (b"GET /" + LONG + END + b"\r\n", 404, "not_found"),
    "a long name of a file": (b"GET /static/" + LONG + END + b"\r\n", 404, "not_found"),
    "a long model": (b"GET /v1/models/" + LONG + END + b"\r\n", 404, "model_not_found"),
    "many long names": (b"GET /" + (LONG + b"/") * 20 + END + b"\r\n", 404, "not_found"),
    "another scheme": (b"GET ftp://localhost/v1/models" + END + b"\r\n", 400, "bad_request"),
    "another host": (b"GET http://other.example/v1/models" + END + b"\r\n", 400, "host_unknown"),
    "no host": (b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "bad_request"),
    "two hosts": (b"GET /v1/models" + END + b"Host: localhost\r\n\r\n", 400, "bad_request"),
    "expect twice": (
        POST + b"Expect: 100-continue\r\n" * 2 + b"Content-Length: 3\r\n\r\nabc",
        417,
        "expectation_unknown",
    ),
    "expect, too large": (
        POST + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n",
        413,
        "request_too_large",
    ),
    "a chunk that is too large": (
        POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
        413,
        "request_too_large",
    ),
    "coding twice": (POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", 501, "transfer_coding_unknown"),
    "length twice": (POST + b"Content-Length: 3\r\n" * 2 + b"\r\nabc", 400, "bad_request"),
    "a length of Python's": (POST + b"Content-Length: 1_0\r\n\r\n" + LONG, 400, "bad_request"),
    "length and coding": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /livez" + END + b"\r\n",
        415,
        "media_type_unsupported",
    ),
    "a fragment": (b"GET /v1/models#x" + END + b"\r\n", 400, "bad_request"),
    "an authority": (b"GET localhost:80" + END + b"\r\n", 400, "bad_request"),
    "bare line feeds": (b"GET /livez HTTP/1.1\nHost: localhost\nConnection: close\n\n", 400, "bad_request"),
    "a blank before the colon": (b"GET /livez" + END + b"X-A : a\r\n\r\n", 400, "bad_request"),
    "a NUL in a header": (b"GET /livez" + END + b"X-A: a\0b\r\n\r\n", 400, "bad_request"),
    "a NUL in the address": (b"GET /v1/models%00" + END + b"\r\n", 404, "not_found"),
    "half a head": (b"GET /livez HTTP/1.1\r\nHost: loc", 400, "bad_request"),
}


class Sent:
    """What http.client reads from, in place of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def read(data: bytes, method: str = "GET") -> tuple[http.client.HTTPResponse, Any]:
    """The only answer in these bytes, and its document."""
    answer = http.client.HTTPResponse(Sent(data), method=method)  # type: ignore[arg-type]
    answer.begin()
    body = answer.read()
    return answer, json.loads(body) if body else None


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_of_apache_is_a_problem_document(served: Server, name: str) -> None:
    request, status, word = REFUSED[name]

    answer, problem = read(ask(served, request, then_shut=True))

    assert (answer.status, problem["status"], problem["code"]) == (status, status, word)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["hint"]
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    if word == "method_not_allowed":
        assert "GET" in answer.headers["Allow"]
        assert ("file" in name) <= (answer.headers["Allow"] == "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    "path",
    [
        "/_errors/404.json",
        "/_errors/500.html",
        "/_errors/",
        "/_errors",
        "//_errors/404.json",
        "/%5ferrors/404.json",
        "/x/../_errors/404.json",
        "/_errors/501-coding.json",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_failures_cannot_be_asked_for(served: Server, path: str, method: str) -> None:
    answer, problem = read(ask(served, f"{method} {path}".encode() + END + b"\r\n"), method)

    assert answer.status == 404
    assert method == "HEAD" or problem["code"] == "not_found"


def test_options_of_a_file_name_what_it_takes(served: Server) -> None:
    answer, _ = read(ask(served, b"OPTIONS /static/site.css" + END + b"\r\n"))

    assert answer.status == 200
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("line", [b"GET http://localhost/v1/models", b"GET https://localhost/v1/models"])
def test_an_absolute_address_of_ours_is_answered(served: Server, line: bytes) -> None:
    assert read(ask(served, line + END + b"\r\n"))[0].status == 200


OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings, close\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: h2c\r\n",
    "websocket": b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "both": b"Connection: Upgrade, close\r\nUpgrade: h2c, WebSocket\r\n",
}


@pytest.mark.parametrize("name", OFFERS)
@pytest.mark.parametrize("path", [b"/v1/models", b"/livez", b"/static/site.css"])
def test_an_offer_of_another_protocol_is_not_taken(served: Server, name: str, path: bytes) -> None:
    head = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n"

    answer = ask(served, head + OFFERS[name] + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 200 "), answer


def test_half_a_request_line_gets_no_answer_and_holds_nothing(served: Server) -> None:
    assert ask(served, b"GET /liv", then_shut=True) == b""
