"""Access logs as people have them: read, dated, spread; what can be asked again is, and the rest is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from loadtest import access_logs, replay
from loadtest.access_logs import Entry
from loadtest.scenario import Scenario
from loadtest.scenarios import Caller
from loadtest.statuses import UsageError

COMBINED = '192.0.2.7 - - [29/Nov/2026:23:59:{:02d} +0100] "{} HTTP/1.1" {} 12 "-" "curl/8"\n'
TEXT = "{} ACCESS  httpd  200 POST /v1/classify?top_k=1 1234us 99b 127.0.0.1  [load-1]\n"


def read(folder: Path, text: str | bytes, name: str = "access.log") -> access_logs.Log:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return access_logs.read([path])


def test_combined_lines_of_one_second_are_spread_over_it(tmp_path: Path) -> None:
    text = "".join(COMBINED.format(second, "GET /a", 200) for second in (1, 2, 2, 2, 2, 4))

    found = read(tmp_path, text).entries

    assert [round(entry.at - found[0].at, 2) for entry in found] == [0, 1, 1.25, 1.5, 1.75, 3]
    assert found[0] == Entry(found[0].at, "GET", "/a", 200)


def test_offsets_of_zones_count_and_lines_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    text = (
        'h - - [29/Nov/2026:10:00:05 +0000] "GET /b HTTP/1.1" 200 1\n'
        'h - - [29/Nov/2026:10:30:01 +0030] "GET /a HTTP/1.1" 200 1\n'
        'vhost:80 h - "joe \\" [x" [29/Nov/2026:10:00:09 +0000] "GET /c?q=\\"1 HTTP/2.0" 301 - "a \\" b" "-"\n'
    )

    found = read(tmp_path, text).entries

    assert [(entry.path, entry.at - found[0].at) for entry in found][:2] == [("/a", 0), ("/b", 4)]
    assert found[2].status == 301


def test_our_own_lines_are_read_in_both_forms_past_those_of_other_logs(tmp_path: Path) -> None:
    row = {"time": "2026-11-29T10:00:00.250Z", "logger": "access", "method": "GET", "path": "/v1/models", "status": 200}
    other = json.dumps({"time": "2026-11-29T10:00:00Z", "logger": "engine", "message": "GET /x"})
    ours = "\n".join([json.dumps(row), other, json.dumps({**row, "time": "2026-11-29T10:00:01.5Z"})])
    text = "23:59:59 INFO    engine  loaded\n" + TEXT.format("23:59:59") + TEXT.format("00:00:01")

    assert [entry.at % 60 for entry in read(tmp_path, ours).entries] == [0.25, 1.5]
    found = read(tmp_path, text)
    assert ([entry.at for entry in found.entries], found.broken) == ([86399, 86401], 0)
    assert found.entries[0].path == "/v1/classify?top_k=1"


def test_rotated_and_compressed_files_are_one_log(tmp_path: Path) -> None:
    lines = [COMBINED.format(second, f"GET /{second}", 200).encode() for second in (1, 2, 3)]
    (tmp_path / "access.log").write_bytes(lines[2])
    # By its content, whatever it is called.
    (tmp_path / "access.log.1").write_bytes(gzip.compress(lines[0] + lines[1]))

    found = access_logs.read([tmp_path / "access.log", tmp_path / "access.log.1"])

    assert [entry.path for entry in found.entries] == ["/1", "/2", "/3"]


@pytest.mark.parametrize(
    "line",
    [
        'h - - [29/Nov/2026:10:00:05 +0000] "" 408 0\n',
        'h - - [29/Nov/2026:10:00:05 +0000] "\\x16\\x03\\x01" 400 0\n',
        'h - - [29/Nov/2026:10:00:05 +0000] "GET http://elsewhere.example/ HTTP/1.1" 200 0\n',
        'h - - [29/Nov/2026:10:00:05 +0000] "CONNECT elsewhere.example:443 HTTP/1.1" 200 0\n',
        'h - - [29/Foo/2026:10:00:05 +0000] "GET / HTTP/1.1" 200 0\n',
        'h - - [31/Feb/2026:10:00:05 +0000] "GET / HTTP/1.1" 200 0\n',
        '{"logger": "access"}\n',
        '{"logger": \n',
        "<html>\n",
        "\x00\xff\n",
    ],
)
def test_broken_lines_are_counted_and_the_first_is_told(tmp_path: Path, line: str) -> None:
    found = read(tmp_path, COMBINED.format(1, "GET /a", 200) + line + COMBINED.format(2, "GET /a", 200))

    assert (len(found.entries), found.broken) == (2, 1)
    assert found.first_broken.startswith("access.log:2: ")


@pytest.mark.parametrize("data", [b"", b"nothing\n" * 3, gzip.compress(b"x" * 1000, mtime=0)[:20], b"\x1f\x8bno gzip"])
def test_what_is_no_log_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match="REPLAY"):
        read(tmp_path, data)


def caller() -> Caller:
    def order(_: Any) -> dict[str, Any]:
        return {"path": "/orders", "json": {}}

    def look(_: Any) -> dict[str, Any]:
        return {"path": "/search?q=1"}

    found = [Scenario("order", order, source="shop.py"), Scenario("look", look), replay.scenario()]
    return Caller(found, [1, 1, 1], {})


def test_bodies_come_from_the_scenario_of_the_same_address_and_what_has_none_is_told() -> None:
    entries = [
        Entry(0.0, "POST", "/orders?ref=7", 201),
        Entry(0.5, "GET", "/search?q=1", 200),
        Entry(1.0, "GET", "/gone", 404),
        Entry(1.5, "DELETE", "/orders/1", 204),
        Entry(2.0, "GET", "/busy", 503),
    ]

    made = replay.plan(entries, "a log", caller(), [1, 1, 1], 1)

    assert made.names == ["order", "look", "replayed", "replayed"]
    assert made.moments == [0.0, 0.5, 1.0, 2.0]
    assert "left out, for no scenario asks it: 1 × DELETE /orders/1" in made.told
    turns = replay.Replayer(caller(), made, 0, 1)
    asked = [turns.next().first for _ in range(4)]
    paths = [f"{each.method} {each.path}" for each in asked if each]
    assert paths == ["POST /orders?ref=7", "GET /search?q=1", "GET /gone", "GET /busy"]
    # What was refused then is no success now; what was not there may be missing still.
    assert [404 in each.status for each in asked if each] == [False, False, True, False]
    assert 503 not in (asked[3].status if asked[3] else ())


def test_each_worker_sends_its_share_in_the_order_of_the_log() -> None:
    entries = [Entry(each / 10, "GET", f"/{each}", 200) for each in range(7)]
    made = replay.plan(entries, "a log", caller(), [1, 1, 1], 1)

    paths = [
        [turns.next().first.path for _ in range(3)]
        for turns in (replay.Replayer(caller(), made, worker, 2) for worker in (0, 1))  # type: ignore[union-attr]
    ]

    assert paths == [["/0", "/2", "/4"], ["/1", "/3", "/5"]]


def test_speed_shortens_and_the_most_within_a_second_is_known(tmp_path: Path) -> None:
    text = "".join(COMBINED.format(second, "GET /pre/a", 200) for second in (0, 2, 4, 6, 8))
    (tmp_path / "a.log").write_text(text)

    log, told = replay.log_of(str(tmp_path / "a.log"), 4.0, None, "/pre")
    made = replay.plan(log.entries, told, caller(), [1, 1, 1], 1)

    assert made.moments == [0, 0.5, 1, 1.5, 2]
    assert made.requests[0][1] == "/a"
    assert made.highest_rate == 2
    assert "5 requests" in told
    assert "at 4 × their speed" in told


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(UsageError, match="SPEED"):
        replay.log_of("a.log", speed, None, "")
