"""The real Apache on loopback: what it lets through, what it answers by itself, who runs where."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests import bad_input
from tests.conftest import SAMPLES
from tests.servers import Server, wait_until

PROBLEM = "application/problem+json"


def speak(server: Server, data: bytes, timeout: float = 10) -> bytes:
    """Send raw bytes and read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while received := connection.recv(65536):
            answer += received
        return answer


def overlap(a: dict[str, float], b: dict[str, float]) -> float:
    """Intersection over union of two boxes."""
    width = min(a["x_max"], b["x_max"]) - max(a["x_min"], b["x_min"])
    height = min(a["y_max"], b["y_max"]) - max(a["y_min"], b["y_min"])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box["x_max"] - box["x_min"]) * (box["y_max"] - box["y_min"]) for box in (a, b)]
    return shared / (sum(areas) - shared)


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_detect_finds_the_right_boxes(served: Server, samples: list[dict[str, Any]], sample_path: Path) -> None:
    expected = next(each for each in samples if each["file"] == sample_path.name)

    answer = served.ask("/v1/detect", sample_path.read_bytes(), {"Content-Type": "image/jpeg"})

    assert answer.status == 200
    found = answer.json["results"][0]["detections"]
    for thing in expected["objects"]:
        same_label = [each["box"] for each in found if each["label"] == thing["label"]]
        assert max((overlap(box, thing["box"]) for box in same_label), default=0) >= 0.5, thing


def test_three_ways_to_send_an_image_give_one_answer(served: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    body, content_type = bad_input.multipart(image)

    raw = served.ask("/v1/detect", image, {"Content-Type": "image/jpeg"})
    parts = served.ask("/v1/detect", body, {"Content-Type": content_type})
    base64 = served.ask("/v1/detect", bad_input.json_body(image), {"Content-Type": "application/json"})

    assert raw.status == parts.status == base64.status == 200
    assert raw.json["results"] == parts.json["results"] == base64.json["results"]


def test_many_images_are_answered_in_the_order_sent(served: Server, samples: list[dict[str, Any]]) -> None:
    paths = [SAMPLES / each["file"] for each in samples]
    singles = [served.ask("/v1/classify", path.read_bytes(), {"Content-Type": "image/jpeg"}).json for path in paths]
    body, content_type = bad_input.multipart(*(path.read_bytes() for path in paths))

    together = served.ask("/v1/classify", body, {"Content-Type": content_type}).json

    best = [result["predictions"][0]["label"] for result in together["results"]]
    assert best == [single["results"][0]["predictions"][0]["label"] for single in singles]


def test_an_answer_names_model_timings_and_request(served: Server, sample_path: Path) -> None:
    answer = served.ask(
        "/v1/detect", sample_path.read_bytes(), {"Content-Type": "image/jpeg", "X-Request-Id": "my-request-0001"}
    )

    assert answer.json["request_id"] == answer.headers["X-Request-Id"] == "my-request-0001"
    assert set(answer.json["model"]) == {"name", "version", "digest"}
    assert answer.json["model"]["digest"].startswith("sha256:")
    assert re.fullmatch(r"(\w+;dur=[\d.]+(, )?)+", answer.headers["Server-Timing"])


def test_zero_is_zero(served: Server, sample_path: Path) -> None:
    image, headers = sample_path.read_bytes(), {"Content-Type": "image/jpeg"}

    none_wanted = served.ask("/v1/detect?max_results=0", image, headers).json
    all_wanted = served.ask("/v1/detect?score_threshold=0&max_results=1000", image, headers).json
    some = served.ask("/v1/detect", image, headers).json

    assert none_wanted["results"][0]["detections"] == []
    assert len(all_wanted["results"][0]["detections"]) > len(some["results"][0]["detections"])


def test_a_body_of_unknown_length_is_welcome(served: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (image[:5000], image[5000:]))
    head = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nConnection: close\r\n"

    answer = speak(served, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────

CASES = bad_input.cases(33_554_432)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_gets_its_problem_document_and_the_next_request_succeeds(
    served: Server, sample_path: Path, case: bad_input.BadInput
) -> None:
    refused = _ask_even_when_cut_off(served, case)
    fine = served.ask("/v1/detect", sample_path.read_bytes(), {"Content-Type": "image/jpeg"})

    assert refused["status"] == case.status
    assert refused["code"] == case.code
    assert refused["detail"]
    assert fine.status == 200


def _ask_even_when_cut_off(server: Server, case: bad_input.BadInput) -> dict[str, Any]:
    """Apache refuses a large body without reading it all, so the answer may come while we still send."""
    head = (
        f"POST /v1/detect{case.query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {case.content_type}\r\n"
        f"Content-Length: {len(case.body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(head)
        try:
            connection.sendall(case.body)
        except OSError:
            assert case.status == 413
        answer = b""
        while received := connection.recv(65536):
            answer += received
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert PROBLEM.encode() in headers, answer[:500]
    if b"chunked" in headers.lower():
        body = body.partition(b"\r\n")[2].rpartition(b"\r\n0")[0]
    document: dict[str, Any] = json.loads(body)
    return document


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"TRACE / HTTP/1.1\r\nHost: localhost", b"405"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: other", b"400"),
        (b"BREW /v1/detect HTTP/1.1\r\nHost: localhost", b"501"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost", b"414"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 9000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Many: 1\r\n" * 120 + b"X: 1", b"431"),
        (b"GET / HTTP/1.1\r\nHost: evil.example", b"400"),
    ],
)
def test_malformed_requests_are_refused(served: Server, request_line: bytes, status: bytes) -> None:
    answer = speak(served, request_line + b"\r\nConnection: close\r\n\r\n")

    assert answer.split(b" ", 2)[1] == status


def test_http_0_9_is_not_answered(served: Server) -> None:
    answer = speak(served, b"GET /\r\n")

    assert b"400" in answer.split(b"\r\n")[0]


def test_what_apache_refuses_by_itself_is_a_page_for_browsers(served: Server) -> None:
    head = b"GET /static/nothing.css HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n"

    answer = speak(served, head)

    assert b"404" in answer.split(b"\r\n")[0]
    assert b"text/html" in answer
    assert b"There is nothing at this address" in answer


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("application/json", PROBLEM), ("*/*", PROBLEM), ("image/png", PROBLEM), ("text/html", "text/html")],
)
def test_what_apache_refuses_has_one_shape_whatever_is_accepted(served: Server, accept: str, content_type: str) -> None:
    answer = served.ask("/static/nothing.css", headers={"Accept": accept})

    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith(content_type)
    assert b"There is nothing at this address" in answer.body


@pytest.mark.parametrize(
    ("language", "cookie", "words"),
    [
        ("de-AT,en;q=0.9", "", "Unter dieser Adresse gibt es nichts"),
        ("en", "colours=light; lang=de", "Unter dieser Adresse gibt es nichts"),
        ("de", "lang=en", "There is nothing at this address"),
        ("en,de;q=0.9", "", "There is nothing at this address"),
        ("de;q=0.0, en", "", "There is nothing at this address"),
        ("de ; q=0.5", "", "Unter dieser Adresse gibt es nichts"),
    ],
)
def test_page_of_apache_speaks_the_language_of_its_reader(
    served: Server, language: str, cookie: str, words: str
) -> None:
    headers = {"Accept": "text/html", "Accept-Language": language, "Cookie": cookie}
    page = served.ask("/static/nothing.css", headers=headers)

    assert words in page.body.decode()
    assert b"<!--#" not in page.body
    assert (b'data-colours="light"' in page.body) is ("colours" in cookie)
    assert b"{{" not in page.body


def test_photographs_of_several_megabytes_pass_as_parts(served: Server) -> None:
    photograph = bad_input.noisy_photograph(2400, 1600)
    body, content_type = bad_input.multipart(photograph, photograph)

    answer = served.ask("/v1/detect", body, {"Content-Type": content_type})

    assert len(photograph) > 2_000_000
    assert answer.status == 200


# ── Headers, files, logs ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/v1/models", "/livez", "/static/favicon.svg", "/static/nothing", "/nothing"])
def test_security_headers_stand_once_on_every_answer(served: Server, path: str) -> None:
    answer = served.ask(path)

    for name in (
        "Content-Security-Policy",
        "X-Content-Type-Options",
        "Referrer-Policy",
        "X-Frame-Options",
        "X-Request-Id",
    ):
        assert len(answer.headers.get_all(name, [])) == 1, name


def test_static_files_are_cached_and_asked_again(served: Server) -> None:
    first = served.ask("/static/favicon.svg")

    again = served.ask("/static/favicon.svg", headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["Cache-Control"] == "public, no-cache"
    assert again.status == 304


def test_one_request_id_from_access_log_to_application_log(served: Server) -> None:
    name = "trace-me-0123456789"

    served.ask("/v1/detect?model=nobody", b"x", {"Content-Type": "image/jpeg", "X-Request-Id": name})

    def lines() -> list[str]:
        return [line for line in served.log().splitlines() if name in line]

    # Apache writes its line when the answer is on its way.
    wait_until(lambda: any("ACCESS" in line for line in lines()), 30, "the access log's line")
    assert any("model_not_found" in line for line in lines())


# ── Processes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_torch_is_loaded_in_the_engine_only(served: Server) -> None:
    engine = served.engine_pid()
    others = served.pids("web") + served.pids("ops")

    assert "libtorch" in Path(f"/proc/{engine}/maps").read_text()
    assert len(others) >= 2
    for pid in others:
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()


def test_web_processes_stay_small_after_work(served: Server, sample_path: Path) -> None:
    for _ in range(40):
        served.ask("/v1/detect", sample_path.read_bytes(), {"Content-Type": "image/jpeg"})

    for pid in served.pids("web"):
        assert proportional_megabytes(pid) < 120


def proportional_megabytes(pid: int) -> float:
    """PSS of a process: pages shared with others count in parts."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1]) / 1024  # type: ignore[index]


def test_health_has_a_process_of_its_own(served: Server) -> None:
    assert set(served.pids("ops")).isdisjoint(served.pids("web"))


def test_ready_names_each_process_its_models_and_their_digests(served: Server) -> None:
    report = served.ask("/readyz").json

    engine = next(row for row in report["processes"] if row["role"] == "engine")
    served_models = {row["digest"] for row in served.ask("/v1/models").json["models"]}
    assert report["ready"] is True
    assert {row["digest"] for row in engine["models"]} == served_models
    assert all(row["warm"] for row in engine["models"])
    assert {"web", "ops"} <= {row["role"] for row in report["processes"]}


def test_status_tells_the_memory_and_processor_time_of_apaches_processes_too(served: Server) -> None:
    status = served.ask("/status").json

    rows = [*status["processes"], status["engine"]]
    pids = [row["pid"] for row in rows]
    apache = [row["pid"] for row in status["processes"] if row["role"] == "apache"]
    assert served.process.pid in apache
    assert len(apache) > 1
    assert len(pids) == len(set(pids))
    assert all(row["resident_bytes"] > 0 for row in rows)
    assert sum(row["cpu_seconds"] for row in rows) > 0
    assert status["cores"] >= 1
