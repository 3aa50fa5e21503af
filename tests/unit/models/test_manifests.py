"""Manifests: what is wrong is refused when the service starts, in words that name file, value and remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ManifestError
from app.inference.results import ClassifyOptions, DetectOptions
from app.models import manifests
from app.models.manifests import InputSpec
from tests import fakes


def refusal(models_dir: Path, **keys: Any) -> ManifestError:
    folder = fakes.write_model(models_dir, **keys)
    with pytest.raises(ManifestError) as caught:
        manifests.read(folder)
    assert str(folder) in caught.value.message
    return caught.value


def test_manifest_is_read(tmp_path: Path) -> None:
    manifest = fakes.make_manifest(tmp_path, "demo", "2", description="A demo.", golden="golden.safetensors")

    assert (manifest.key, manifest.labels) == ("demo@2", ("cone", "helmet", "person"))
    assert manifest.input == InputSpec("crop", size=8, resize_size=8)
    assert manifest.weights_path == tmp_path / "demo" / "2" / "model.safetensors"
    assert manifest.golden_path == tmp_path / "demo" / "2" / "golden.safetensors"


def test_manifest_without_golden_has_no_path_of_one(manifest: manifests.Manifest) -> None:
    assert manifest.golden_path is None


def test_digest_changes_with_every_byte(tmp_path: Path) -> None:
    first = fakes.make_manifest(tmp_path).digest
    again = fakes.make_manifest(tmp_path).digest
    other = fakes.make_manifest(tmp_path, description="x").digest

    assert first == again != other
    assert first.startswith("sha256:") and len(first) == 71


def test_defaults_of_each_task_come_from_the_serve_table(tmp_path: Path) -> None:
    serve = {"top_k": 0, "score_threshold": 0, "max_results": 9}

    assert fakes.make_manifest(tmp_path, serve=serve).default_options() == ClassifyOptions(0)
    detector = fakes.make_manifest(tmp_path, "d", task="detect", serve=serve)
    assert detector.default_options() == DetectOptions(0, 0.5, 9)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"lables": ["a"]}, "unknown key 'lables'"),
        ({"sha256": None}, "missing .* 'sha256'"),
        ({"labels": None}, "the key 'labels' is missing"),
        ({"labels": []}, "labels is empty"),
        ({"labels": "abc"}, "labels is 'abc', expected a list"),
        ({"labels": ["a", 5]}, "not all of it is text"),
        ({"labels": ["a", ""]}, "not all of it is text"),
        ({"task": "paint", "input": fakes.INPUTS["classify"]}, "task 'paint' is unknown"),
        ({"sha256": "abc"}, "sha256 is not a SHA-256"),
        ({"sha256": "A" * 64}, "sha256 is not a SHA-256"),
        ({"sha256": 5}, "sha256 is 5"),
        ({"description": 5}, "description is 5"),
        ({"weights": "../../secret"}, r"weights '\.\./\.\./secret' is not the name of a file"),
        ({"weights": "/etc/passwd"}, "weights '/etc/passwd' is not the name of a file"),
        ({"golden": ".."}, r"golden '\.\.' is not the name of a file"),
        ({"input": {}}, "missing .* 'kind'"),
        ({"input": "crop"}, "dictionary update sequence"),
        ({"input": {"kind": "stretch"}}, "input.kind 'stretch' is unknown"),
        ({"input": {"kind": "crop", "size": 8}}, "input.resize_size is missing"),
        ({"input": {"kind": "crop", "size": 8, "resize_size": 7}}, "input.resize_size is smaller"),
        ({"input": {"kind": "letterbox"}}, "input.size is missing"),
        ({"input": {"kind": "letterbox", "size": "640"}}, "input.size is missing or not usable"),
        ({"input": {"kind": "letterbox", "size": 1.5}}, "input.size is missing or not usable"),
        ({"input": {"kind": "letterbox", "size": 10**6}}, "input.size is missing or not usable"),
        ({"input": {"kind": "fit", "min_size": 8}}, "input.max_size is missing"),
        ({"input": {"kind": "letterbox", "size": 8, "colour": "grey"}}, "unexpected keyword argument 'colour'"),
        ({"input": {"kind": "letterbox", "size": 8, "mean": ["a", "b", "c"]}}, "could not convert"),
        ({"input": {"kind": "letterbox", "size": 8, "mean": 0.5}}, "not iterable"),
        ({"input": {"kind": "letterbox", "size": 8, "std": [1, 1]}}, "input.mean or input.std"),
        ({"input": {"kind": "letterbox", "size": 8, "std": [1, 1, 0]}}, "input.mean or input.std"),
        ({"serve": {"max_batch_size": 0}}, "serve.max_batch_size is 0"),
        ({"serve": {"max_queue_delay_ms": -1}}, "serve.max_queue_delay_ms is -1"),
        ({"serve": {"max_queue_delay_ms": "5"}}, "serve.max_queue_delay_ms is '5'"),
        ({"serve": {"max_batch_size": True}}, "serve.max_batch_size is True"),
        ({"serve": {"max_batch_size": "8"}}, "serve.max_batch_size is '8'"),
        ({"serve": {"top_k": -1}}, "serve.top_k is -1"),
        ({"serve": {"score_threshold": 1.5}}, r"serve.score_threshold is 1\.5"),
        ({"serve": {"topk": 5}}, "unexpected keyword argument 'topk'"),
    ],
    ids=str,
)
def test_manifest_that_is_wrong_is_refused_in_words(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    error = refusal(tmp_path, **keys)

    assert re.search(words, error.message), error.message
    assert error.hint


@pytest.mark.parametrize("name", ["Demo", "a b", "-x"])
def test_name_that_is_not_usable_is_refused(tmp_path: Path, name: str) -> None:
    assert f"name {name!r} is not usable" in refusal(tmp_path, name=name).message


def test_manifest_must_lie_where_it_says(tmp_path: Path) -> None:
    folder = fakes.write_model(tmp_path, "demo", "1")
    folder.rename(tmp_path / "demo" / "2")

    with pytest.raises(ManifestError, match="says it is demo@1 but lies elsewhere"):
        manifests.read(tmp_path / "demo" / "2")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b"\x00"])
def test_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.toml").write_bytes(content)

    with pytest.raises(ManifestError, match="cannot be read"):
        manifests.read(tmp_path)


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not exist"):
        manifests.read(tmp_path)


def test_newest_version_of_every_model_is_served_by_default(tmp_path: Path) -> None:
    for version in ("9", "10", "2", "10-rc1"):
        fakes.write_model(tmp_path, "b", version)
    fakes.write_model(tmp_path, "a", "1")

    assert [each.key for each in manifests.find(tmp_path)] == ["a@1", "b@10"]


def test_chosen_models_are_served_in_the_order_chosen(tmp_path: Path) -> None:
    for name, version in (("a", "1"), ("a", "2"), ("b", "1")):
        fakes.write_model(tmp_path, name, version)

    assert [each.key for each in manifests.find(tmp_path, ("b", "a@1"))] == ["b@1", "a@1"]


@pytest.mark.parametrize(
    ("chosen", "words", "hint"),
    [("c", "MODELS names 'c'", "There are: a."), ("a@9", "a has no version '9'", "It has: 1, 2.")],
)
def test_chosen_model_that_is_not_there_is_refused(tmp_path: Path, chosen: str, words: str, hint: str) -> None:
    for version in "12":
        fakes.write_model(tmp_path, "a", version)

    with pytest.raises(ManifestError, match=words) as caught:
        manifests.find(tmp_path, (chosen,))

    assert caught.value.hint == hint


def test_store_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()

    with pytest.raises(ManifestError, match="holds no model"):
        manifests.find(tmp_path)


@pytest.mark.parametrize(
    "ascending",
    [
        ("2", "10"),
        ("1.9", "1.10"),
        ("1.0", "1.0.1"),
        ("2.0-rc1", "2.0-rc2", "2.0"),
        ("2.0-alpha", "2.0-beta", "2.0"),
        ("v1", "v2", "v10"),
        ("2026-01-05", "2026-01-12"),
    ],
)
def test_versions_are_ordered_as_people_do(ascending: tuple[str, ...]) -> None:
    shuffled = ascending[::-1]

    assert sorted(shuffled, key=manifests.version_order) == list(ascending)


@given(st.lists(st.from_regex(manifests.NAME_PATTERN, fullmatch=True), max_size=6))
def test_any_versions_can_be_ordered(versions: list[str]) -> None:
    assert len(sorted(versions, key=manifests.version_order)) == len(versions)


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"kind": ["crop"], "size": 8, "resize_size": 8}},
        {"input": {"kind": "crop", "size": 8, "resize_size": 8, "std": [0.1, "x", 1]}},
        {"sha256": [1]},
        {"aliases": {"a": ["cone"]}},
        {"tolerance": {"right": "half"}},
        {"tolerance": {"agreement": 2}},
        {"tolerance": []},
        {"serve": 5},
    ],
)
def test_values_of_another_kind_are_a_wrong_manifest_and_nothing_worse(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        fakes.make_manifest(tmp_path, **change)


def test_tables_nested_without_end_are_a_wrong_manifest(tmp_path: Path) -> None:
    folder = fakes.write_model(tmp_path)
    (folder / "manifest.toml").write_text("a = " + "[" * 100_000)

    with pytest.raises(ManifestError, match="cannot be read"):
        manifests.read(folder)


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ('task = "detect"\n[input', "detect"),
        ("  task='classify' # x\n= no", "classify"),
        ('task = "other"\n=', None),
        ('task = "detect"\ntask = "classify"', None),
        ("", None),
    ],
)
def test_the_task_of_a_damaged_manifest_is_told_where_it_can_be(tmp_path: Path, text: str, task: str | None) -> None:
    (tmp_path / "manifest.toml").write_text(text)

    assert manifests.task_of(tmp_path) == task


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": [640, 480]}, "not equal is not supported"),
        ({"width": 640, "height": 480}, "not equal is not supported"),
        ({"mean": [0.5]}, "1 channel"),
        ({"std": [0.5]}, "1 channel"),
    ],
)
def test_inputs_that_are_not_square_or_grey_have_sentences_of_their_own(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        fakes.make_manifest(tmp_path, task="detect", input={"kind": "letterbox", "size": 64, **change})

    assert words in caught.value.hint
