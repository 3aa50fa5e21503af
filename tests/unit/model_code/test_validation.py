"""A request is checked against the schema of a model without its code; the first fault is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import cask
from app.errors import OptionError
from app.model_code import kinds, validation

SCORES = Annotated[list[Annotated[float, cask.Range(0, 1)]], None]


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (str, 3, "text is 3."),
        (Annotated[str, cask.Text(2, 3)], "abcd", "text is 'abcd'."),
        (Annotated[str, cask.Text(pattern="a|b")], "ab", "text is 'ab'."),
        # It would take years; nobody waits longer than for another.
        (Annotated[str, cask.Text(pattern="(x+x+)+y")], "x" * 4000, "text is 'xxx"),
        (str, "\ud800", r"text is '\ud800'."),
        (int, True, "text is True."),
        (int, 2.5, "text is 2.5."),
        (float, float("nan"), "text is nan."),
        (float, 10**400, "text is 1000"),
        (Annotated[int, cask.Range(1, 5)], 6, "text is 6."),
        (bool, 1, "text is 1."),
        (bytes, "no base64!", "text is 'no base64!'."),
        (Literal["a", "b"], "c", "text is 'c'."),
        (Literal[1], True, "text is True."),
        (SCORES, [0.5, 2], "text[1] is 2."),
        (dict[str, int], {"a": "b"}, "text.a is 'b'."),
        (cask.Label, {"label": "x"}, "text.score is missing."),
        (cask.Label, {"label": "x", "score": 1, "more": 2}, "text.more is unknown."),
        (cask.Label, ["x"], "text is ['x']."),
        (Annotated[np.ndarray, cask.Shape(2)], [1, 2, 3], "text is a list of 3."),
        (Annotated[np.ndarray, cask.Shape(None, dtype="float32")], [1e39], "text[0] is 1e+39."),
        (Annotated[np.ndarray, cask.Shape(None, None)], [[1], [1, 2]], "text is [[1], [1, 2]]."),
    ],
)
def test_fault_is_named(tmp_path: Path, hint: Any, value: Any, said: str) -> None:
    with pytest.raises(OptionError) as raised:
        validation.check(kinds.kind_of(hint, tmp_path).schema, value, "text")

    assert str(raised.value.message).startswith(said)
    assert str(raised.value.hint)


@pytest.mark.parametrize(
    ("hint", "value", "checked"),
    [
        (int, 3.0, 3),
        (float, 3, 3),
        (float, 1e300, 1e300),
        (int | None, None, None),
        (str, "ß 你", "ß 你"),
        (list[str], [], []),
        (cask.Box, dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), 1), None),
    ],
)
def test_what_fits_is_passed(tmp_path: Path, hint: Any, value: Any, checked: Any) -> None:
    found = validation.check(kinds.kind_of(hint, tmp_path).schema, value, "text")

    assert found == (value if checked is None else checked)
    assert type(found) is type(value if checked is None else checked)
