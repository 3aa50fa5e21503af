"""What the measurements beside our peers are summed up with, and the bytes they are taken with."""

from __future__ import annotations

import base64
import io
import math
import socket
import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from bench import chart, contenders, growth, load, memory, report, requests
from bench.exchange import Exchange, PeerClosedError, Response
from bench.requests import Request
from bench.statistics import Sample, percentile, ratio, summarise


def samples_of(contender: str, *values: float, measure: str = "throughput_8_per_s") -> list[Sample]:
    return [Sample(contender, measure, number, value) for number, value in enumerate(values, start=1)]


def read_answer(answer: bytes) -> Response | None:
    """What an exchange makes of these bytes, after which the server closes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        made = Exchange(ours, Request((b"GET / HTTP/1.1\r\n\r\n",)))
        made.write()
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        return made.read()


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 0.5))


def test_summary_leaves_out_what_is_not_a_number() -> None:
    found = summarise([3.0, math.nan, 1.0, 2.0])

    assert (found.median, found.low, found.high, found.rounds) == (2.0, 1.0, 3.0, 3)


def test_ratio_is_taken_within_each_round() -> None:
    samples = samples_of("ours", 200, 20, 200) + samples_of("peer", 100, 10, 50)

    found = ratio(samples, "throughput_8_per_s", "ours", "peer")

    assert (found.median, found.low, found.high) == (2.0, 2.0, 4.0)


def test_ratio_skips_rounds_that_only_one_took_part_in() -> None:
    samples = samples_of("ours", 30, 60) + samples_of("peer", 10)

    assert ratio(samples, "throughput_8_per_s", "ours", "peer").rounds == 1


def test_arrivals_keep_their_rate_and_are_the_same_for_a_seed() -> None:
    moments = load.arrivals(100, 50, seed=1)

    assert moments == load.arrivals(100, 50, seed=1)
    assert 0.9 * 5000 < len(moments) < 1.1 * 5000
    assert moments == sorted(moments)
    assert moments[-1] < 50


def test_regular_arrivals_are_evenly_spaced() -> None:
    assert load.arrivals(4, 1.1, seed=0, is_regular=True) == [0.25, 0.5, 0.75, 1.0]


def test_memory_counts_a_process_and_all_below_it(tmp_path: Path) -> None:
    for pid, parent, kilobytes in ((10, 1, 1000), (11, 10, 200), (12, 11, 30), (13, 1, 4000)):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} (a) b) S {parent} 0")
        (folder / "smaps_rollup").write_text(f"Rss: 9 kB\nPss: {kilobytes} kB\nPss_Anon: 1 kB\n")

    assert memory.tree(10, tmp_path) == [10, 11, 12]
    assert memory.tree_pss_mb(10, tmp_path) == pytest.approx(1230 * 1024 / 1e6)


# ── bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", [requests.RAW, requests.BASE64_JSON, requests.multipart("image")])
def test_no_two_requests_are_the_same_and_each_holds_the_whole_picture(form: requests.Form) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(buffer, "JPEG")

    first, second = islice(requests.picture_requests("/p", form, [buffer.getvalue()], ["red"]), 2)
    head, _, body = b"".join(first.buffers).partition(b"\r\n\r\n")
    picture = body[len(form.before) : len(body) - len(form.after)]
    picture = base64.b64decode(picture, validate=True) if form.is_base64 else picture

    assert first.buffers != second.buffers
    assert f"Content-Length: {len(body)}".encode() in head
    assert Image.open(io.BytesIO(picture)).convert("RGB").size == (16, 8)
    assert first.expected == "red"


def test_no_request_of_one_measurement_comes_again_in_the_next() -> None:
    def some() -> list[bytes]:
        made = requests.picture_requests("/p", requests.RAW, [b"\xff\xd8rest"], ["red"])
        return [b"".join(each.buffers) for each in islice(made, 5)]

    assert len({*some(), *some()}) == 10


def test_an_answer_with_a_length_may_leave_the_connection_open() -> None:
    response = read_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    assert response is not None
    assert (response.status, response.body, response.can_stay) == (200, b"ok", True)


def test_an_answer_in_chunks_is_put_together() -> None:
    chunks = b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n"

    response = read_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    assert response is not None
    assert response.body == b"ok"


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    response = read_answer(b"HTTP/1.0 503 Busy\r\n\r\nlater")

    assert response is not None
    assert (response.status, response.body, response.can_stay) == (503, b"later", False)


@pytest.mark.parametrize(
    ("answer", "is_silent"), [(b"", True), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", False)]
)
def test_an_answer_cut_off_is_a_broken_connection(answer: bytes, is_silent: bool) -> None:
    with pytest.raises(PeerClosedError) as caught:
        read_answer(answer)

    assert caught.value.is_silent is is_silent


@pytest.fixture
def echo_port() -> int:
    """A server that answers each connection's requests with a label, and every third with 503."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for number in range(6):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                status = b"503 Busy" if number % 3 == 2 else b"200 OK"
                connection.sendall(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 3\r\n\r\nred")
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def test_outcomes_are_told_apart(echo_port: int) -> None:
    asked = [Request((b"GET / HTTP/1.1\r\n\r\n",), label) for label in ("red", "blue", "red", "red", "red", "red")]

    outcomes = [load.once(echo_port, each, lambda body: body.decode()).outcome for each in asked]

    assert outcomes == ["right", "wrong", "refused", "right", "right", "refused"]


def test_nobody_listening_is_a_reset() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    assert load.once(port, Request((b"GET / HTTP/1.1\r\n\r\n",)), bytes.decode).outcome == "reset"


# ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_document_leaves_out_what_was_not_measured() -> None:
    text = report.document(samples_of("ours", 10, 30, 20), {"ours": "Ours"}, ["# Head"])

    assert "| Ours | 20.0 (10.0–30.0) |" in text
    assert "Memory" not in text


def test_the_chart_is_whole_and_escapes_titles() -> None:
    svg = chart.draw(samples_of("ours", 10, 20), {"ours": "a < b"}, "throughput_8_per_s", "T", "n")

    assert svg.startswith("<svg")
    assert "a &lt; b" in svg
    assert "prefers-color-scheme: dark" in svg


def test_the_wait_on_paper_is_that_of_the_queue_with_one_server_and_with_many():
    # M/M/1: load share ÷ (1 − load share) times the work; M/M/2 at half load: Erlang's C is a third.
    assert growth._waited_ms(1, 0.9, 0.010) == pytest.approx(90.0)
    assert growth._waited_ms(2, 0.5, 0.009) == pytest.approx(3.0)
    assert growth._waited_ms(1000, 0.5, 0.010) < 1e-9


# ── start ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_start_begins_when_the_copy_of_its_state_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "built").mkdir()
    synced: list[float] = []
    monkeypatch.setattr(contenders.os, "sync", lambda: synced.append(time.perf_counter()))
    ours = replace(contenders.ours()[0], command=lambda port, folder: ["true"], state=tmp_path / "built")

    with contenders.running(ours) as server:
        assert (server.folder / "state").is_dir()
        assert synced[0] <= server.began <= time.perf_counter()
