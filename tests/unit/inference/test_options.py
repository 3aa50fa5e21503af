"""What callers may requested for: 0 is 0, nothing is left out silently, and every refusal names value and range."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import OptionError
from app.inference import options
from app.inference.results import ClassifyOptions, DetectOptions
from app.models.manifests import Task
from tests import fakes


def parse(task: Task = "detect", **raw: Any) -> Any:
    return options.parse(task, raw)


def refusal(task: Task = "detect", **raw: Any) -> OptionError:
    with pytest.raises(OptionError) as caught:
        options.parse(task, raw)
    return caught.value


@pytest.mark.parametrize("zero", [0, "0", 0.0])
@pytest.mark.parametrize("name", ["score_threshold", "iou_threshold", "max_results", "min_width", "min_height"])
def test_zero_is_zero_and_not_left_out(name: str, zero: object) -> None:
    assert getattr(parse(**{name: zero}), name) == 0


@pytest.mark.parametrize("nothing", ["", None])
def test_empty_counts_as_left_out(nothing: object) -> None:
    assert parse(score_threshold=nothing, model=nothing).model_dump(exclude_none=True) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_threshold", "0.25"),
        ("score_threshold", 1),
        ("iou_threshold", "1.0"),
        ("max_results", "1000"),
        ("min_width", "1e6"),
        ("min_height", 0.5),
    ],
)
def test_text_and_number_mean_the_same(name: str, value: Any) -> None:
    assert getattr(parse(**{name: value}), name) == float(value)


@pytest.mark.parametrize(
    "value", ["nan", "NaN", "inf", "-inf", float("nan"), float("inf"), "-0.01", 1.01, "x", "0,5", "0_1", "\u0660"]
)
@pytest.mark.parametrize("name", ["score_threshold", "iou_threshold"])
def test_threshold_outside_its_range_is_refused(name: str, value: object) -> None:
    error = refusal(**{name: value})

    assert error.message.startswith(f"{name} is {str(value)!r}: ")
    assert error.hint


@pytest.mark.parametrize("value", ["-1", "1001", "2.5", "1e3", "nan", "", [], "9" * 5000, "1_0", "0x10", "\uff11"])
def test_count_outside_its_range_is_refused(value: object) -> None:
    if value == "":
        assert parse("classify", top_k=value).top_k is None
    else:
        assert refusal("classify", top_k=value).message.startswith("top_k is ")


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("name", ["score_threshold", "max_results", "min_width"])
def test_truth_is_no_number(name: str, value: bool) -> None:
    assert refusal(**{name: value}).message.startswith(f"{name} is '{str(value).lower()}'")


@pytest.mark.parametrize("value", ["inf", "nan", -1, 1e7])
def test_least_size_is_a_number_of_pixels(value: object) -> None:
    assert "min_width is" in refusal(min_width=value).message


def test_misspelt_option_is_refused_with_the_right_one() -> None:
    error = refusal(score_treshold=0.5)

    assert error.message == "'score_treshold' is not an option of detect."
    assert error.hint == "Did you mean score_threshold?"


@pytest.mark.parametrize("value", [None, "", 0])
def test_unknown_option_is_refused_even_where_it_says_nothing(value: object) -> None:
    assert refusal(colour=value).message == "'colour' is not an option of detect."


def test_unknown_option_is_refused_with_all_that_there_are() -> None:
    error = refusal("classify", zebra=1)

    assert error.hint == "Known options: model, version, top_k, explain, explain_label."


def test_option_of_the_other_task_is_refused() -> None:
    assert "'top_k' is not an option of detect" in refusal("detect", top_k=3).message


@pytest.mark.parametrize("name", ["Demo", "../etc", "a/b", "-a", "a" * 65, "a\n", "é", "a b", "\ud800"])
@pytest.mark.parametrize("key", ["model", "version"])
def test_name_that_could_be_no_folder_is_refused(key: str, name: str) -> None:
    assert refusal(**{key: name}).message.startswith(f"{key} is ")


@pytest.mark.parametrize("name", ["a", "resnet18", "1.0.0-rc_1", "a" * 64])
def test_name_of_a_model_is_accepted(name: str) -> None:
    assert (parse(model=name).model, parse(version=name).version) == (name, name)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.floats() | st.booleans() | st.none(), max_size=3))
def test_any_wishes_are_understood_or_refused_by_name(raw: dict[str, Any]) -> None:
    try:
        options.parse("detect", raw)
    except OptionError as error:
        assert error.message


@pytest.mark.parametrize("name", ["\ud800", "model_config", "__class__", ""])
def test_odd_name_is_an_unknown_option(name: str) -> None:
    assert "is not an option of detect" in refusal(**{name: 1}).message


def test_long_value_is_not_repeated_in_full() -> None:
    assert len(refusal(score_threshold="x" * 10_000).message) < 300


def test_what_is_left_out_comes_from_the_manifest(tmp_path: Path) -> None:
    serve = {"score_threshold": 0.3, "iou_threshold": 0.4, "max_results": 7}
    manifest = fakes.make_manifest(tmp_path, task="detect", serve=serve)

    completed = options.complete(parse(iou_threshold=0, min_width=3), manifest)

    assert completed == DetectOptions(0.3, 0.0, 7, 3.0, 0.0)


def test_what_was_completed_for_a_manifest_is_for_no_other(tmp_path: Path) -> None:
    given = parse("classify")
    first, second = (fakes.make_manifest(tmp_path / str(count), serve={"top_k": count}) for count in (2, 3))

    for _ in range(2):
        assert [options.complete(given, each) for each in (first, second)] == [ClassifyOptions(2), ClassifyOptions(3)]


def test_table_of_what_was_completed_does_not_grow(tmp_path: Path) -> None:
    manifest = fakes.make_manifest(tmp_path)
    for count in range(3 * options.MAX_COMPLETED):
        assert options.complete(parse("classify", top_k=str(1 + count % 9)), manifest) == ClassifyOptions(1 + count % 9)

    assert len(options._completed) <= options.MAX_COMPLETED


def test_wish_of_no_labels_at_all_is_kept(tmp_path: Path) -> None:
    manifest = fakes.make_manifest(tmp_path)

    assert options.complete(parse("classify", top_k="0"), manifest) == ClassifyOptions(0)
    assert options.complete(parse("classify"), manifest) == ClassifyOptions(5)


@pytest.mark.parametrize(
    ("kind", "is_text"),
    [(Literal["grey", "heat"] | None, True), (str | None, True), (float | None, False), (Literal[1, 2], False)],
)
def test_option_that_takes_words_is_no_number(kind: Any, is_text: bool) -> None:
    """JSON's texts are refused for numbers, and for these alone."""
    assert options._takes_text(kind) is is_text
