"""The table of lengths: what a body as long as another one may hope for, for servers without our Apache."""

from __future__ import annotations

import pytest

from app.web.middleware.admission import MAY_BE_KEPT_KEY, Admission
from app.web.middleware.admission_controller import AdmissionController
from app.web.middleware.cached_lengths import LONGEST, ROWS, Lengths, Outcome


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


def test_word_of_apache_counts_more_than_the_table() -> None:
    table, busy = Lengths(), AdmissionController(4, 1.0, has_cache=True)
    busy.slots = 0
    environ = {"PATH_INFO": "/v1/detect", "REQUEST_METHOD": "POST", "REMOTE_ADDR": "a", "CONTENT_LENGTH": "77"}
    admission = Admission(lambda *_: [b"through"], busy, ["/v1/detect"], lengths=table)

    assert admission(dict(environ), lambda *_: None) != [b"through"]
    assert admission({**environ, MAY_BE_KEPT_KEY: "1"}, lambda *_: None) == [b"through"]
    anew = {**environ, MAY_BE_KEPT_KEY: "1", "HTTP_CACHE_CONTROL": "no-cache"}
    assert admission(anew, lambda *_: None) != [b"through"]
