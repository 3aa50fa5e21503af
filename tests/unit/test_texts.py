"""Texts: English for whoever only reads them, and id and values for other languages, also behind a socket or a disk."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from app.errors import EngineBusyError, ImageTooLargeError, RequestError
from app.jobs import store
from app.texts import Text, packed, unpacked

NESTED = Text("%(what)s is %(size)s of %(share).1f.", what=Text("An image of %(n)s", n=3), size=12, share=0.25)


def test_a_text_is_its_english() -> None:
    assert NESTED == "An image of 3 is 12 of 0.2."
    assert (NESTED.id, NESTED.values["size"]) == ("%(what)s is %(size)s of %(share).1f.", 12)
    assert Text("50% of it") == "50% of it"


@pytest.mark.parametrize("id", ["%(missing)s", "100% of %(n)", "%(n)d", "%"])
def test_words_that_do_not_fit_their_values_are_shown_as_they_are(id: str) -> None:
    assert Text(id, n="x") == id


@pytest.mark.parametrize("text", [NESTED, Text("Plain."), "a string", Text("50% of %(n)s", n="%(n)s")])
def test_a_text_comes_back_from_json(text: str) -> None:
    back = unpacked(json.loads(json.dumps(packed(text))))

    assert back == text
    assert packed(back) == packed(text)


@pytest.mark.parametrize("said", [None, 3, ["x"], {"id": "x"}, {"values": []}, {"id": None, "values": {"a": None}}])
def test_whatever_else_comes_is_words(said: object) -> None:
    assert isinstance(unpacked(said), Text)


def test_a_text_can_be_copied() -> None:
    for back in (pickle.loads(pickle.dumps(NESTED)), copy.deepcopy(NESTED)):  # noqa: S301 - our own bytes
        assert (back, back.id, back.values) == (NESTED, NESTED.id, NESTED.values)


def test_message_and_hint_of_a_failure_share_its_values() -> None:
    error = RequestError("%(name)s is odd.", hint="Leave %(name)s out.", name="x")

    assert (error.message, error.hint, str(error)) == ("x is odd.", "Leave x out.", "x is odd.")
    assert error.to_problem("id", lambda text: f"<{text}>")["hint"] == "<Leave x out.>"
    assert error.retry_after_seconds is None
    assert EngineBusyError("Full.").retry_after_seconds == 1.0


def test_a_kept_failure_is_told_in_any_language_and_keeps_its_members() -> None:
    error = ImageTooLargeError("It has %(size)s.", hint="Less.", size=5)
    kept = json.loads(json.dumps({"number": 1, "name": "a", "error": store.problem(error)}))

    told = store.told(kept, lambda text: f"<{getattr(text, 'id', text)}>")["error"]

    assert set(told) == {"code", "status", "title", "detail", "hint"}
    assert (told["detail"], told["hint"]) == ("<It has %(size)s.>", "<Less.>")
    assert store.told(kept)["error"]["detail"] == "It has 5."


def test_a_failure_that_an_older_release_kept_stays_readable() -> None:
    old = {"code": "image_empty", "status": 422, "title": "The image is empty", "detail": "It has 0.", "hint": "More."}
    row = {"number": 1, "name": "a", "error": old}

    assert store.told(row) == row
    assert store.told({"number": 2, "detections": []}) == {"number": 2, "detections": []}
