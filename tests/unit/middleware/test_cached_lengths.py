"""The table of lengths: what a body as long as another one may hope for, in every process that has the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.web.middleware import cached_lengths
from app.web.middleware.admission import Admission
from app.web.middleware.admission_controller import AdmissionController
from app.web.middleware.cached_lengths import LONGEST, ROWS, Lengths, Outcome
from tests.servers import ROOT


@pytest.mark.parametrize(
    ("outcomes", "may"),
    [
        ([], False),
        ([Outcome.COMPUTED], True),
        ([Outcome.KEPT], True),
        ([Outcome.IN_VAIN], False),
        ([Outcome.COMPUTED, Outcome.IN_VAIN], False),
        ([Outcome.COMPUTED, Outcome.IN_VAIN, Outcome.COMPUTED], False),
        ([Outcome.COMPUTED, Outcome.IN_VAIN, Outcome.KEPT], True),
        ([Outcome.KEPT, Outcome.IN_VAIN, Outcome.COMPUTED], True),
    ],
)
def test_length_may_be_kept_after(outcomes: list[Outcome], may: bool) -> None:
    table = Lengths()
    for outcome in outcomes:
        table.note(90_000, outcome)

    assert table.may_be_kept(90_000) is may
    assert not table.may_be_kept(90_001)


def test_row_belongs_to_the_length_that_came_last() -> None:
    table = Lengths()
    table.note(5, Outcome.KEPT)
    table.note(5 + ROWS, Outcome.COMPUTED)

    assert (table.may_be_kept(5), table.may_be_kept(5 + ROWS)) == (False, True)


@pytest.mark.parametrize("length", [-1, 0, LONGEST + 1, 1 << 40])
def test_odd_length_is_none(length: int) -> None:
    table = Lengths()
    table.note(length, Outcome.KEPT)

    assert not table.may_be_kept(length)


def test_longest_length_has_a_row() -> None:
    table = Lengths()
    table.note(LONGEST, Outcome.KEPT)

    assert table.may_be_kept(LONGEST)


def test_processes_share_the_table_and_a_new_start_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lengths"
    cached_lengths.make(path)
    Lengths(path).note(7, Outcome.KEPT)
    cached_lengths.make(path)

    assert Lengths(path).may_be_kept(7)


def test_table_of_another_size_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "lengths"
    path.write_bytes(b"short")
    cached_lengths.make(path)

    assert path.stat().st_size == ROWS * cached_lengths.ROW_BYTES


def test_apache_reads_the_table_as_it_is_written() -> None:
    source = (ROOT / "apache" / "modules" / "mod_arrivals.c").read_text()
    numbers = dict(re.findall(r"#define (LENGTHS|LENGTHS_STATE_BITS|COMPUTED|KEPT) (\d+)", source))

    assert numbers == {
        "LENGTHS": str(ROWS),
        "LENGTHS_STATE_BITS": str(cached_lengths.STATE_BITS),
        "COMPUTED": str(int(Outcome.COMPUTED)),
        "KEPT": str(int(Outcome.KEPT)),
    }


@pytest.mark.parametrize("said", [None, "", "abc", "-5", "1e3"])
def test_admission_takes_an_unsaid_length_for_unknown(said: str | None) -> None:
    table = Lengths()
    admission = Admission(
        lambda *_: [b"through"], AdmissionController(4, 1.0, has_cache=True), ["/v1/detect"], lengths=table
    )
    environ = {"PATH_INFO": "/v1/detect", "REQUEST_METHOD": "POST", "REMOTE_ADDR": "a"}

    assert admission({**environ, **({} if said is None else {"CONTENT_LENGTH": said})}, lambda *_: None) == [b"through"]


def test_admission_notes_what_came_of_each_body() -> None:
    table, controller = Lengths(), AdmissionController(4, 1.0, has_cache=True)

    def app(environ: dict[str, object], start_response: object) -> list[bytes]:
        start_response("200 OK", [])  # type: ignore[operator]
        return []

    environ = {"PATH_INFO": "/v1/detect", "REQUEST_METHOD": "POST", "REMOTE_ADDR": "a", "CONTENT_LENGTH": "77"}
    Admission(app, controller, ["/v1/detect"], lengths=table)(environ, lambda *_: None)

    assert table.may_be_kept(77)


def test_table_has_its_place_on_the_disk_also_where_an_older_one_had_holes(tmp_path: Path) -> None:
    path = tmp_path / "lengths"
    with path.open("wb") as file:
        file.truncate(ROWS * cached_lengths.ROW_BYTES)

    cached_lengths.make(path)

    about = path.stat()
    assert about.st_size == ROWS * cached_lengths.ROW_BYTES
    assert about.st_blocks * 512 >= about.st_size
