"""Which candidate serves: the fastest within the tolerance, the wished one, and never one that was built elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.results import Box, Detection
from app.vision import agreement, built
from app.vision.built import Candidate, Report
from tests import fakes

REFERENCE = Candidate("torch", "fp32", images_per_second=40)
EXACT = Candidate("openvino", "fp32", "fp32.xml", images_per_second=65)
FAST = Candidate("openvino", "int8", "int8.xml", images_per_second=200, agreement=0.999, map_loss=0.001)


def names(candidates: list[Candidate]) -> dict[str, str]:
    return {each.name: each.verdict for each in candidates}


def test_the_fastest_within_the_tolerance_is_chosen() -> None:
    judged = built.choose([REFERENCE, EXACT, FAST], agreement=0.995, map_loss=0.005)

    assert [each.is_chosen for each in judged] == [False, False, True]
    assert names(judged)["openvino fp32"] == "slower than openvino int8"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"agreement": 0.99}, "agrees in 99.00%"), ({"map_loss": 0.02}, "loses 2.00 points of mAP")],
)
def test_a_fast_but_unfaithful_one_is_left_out_and_says_why(changes: dict[str, float], words: str) -> None:
    judged = built.choose([REFERENCE, EXACT, replace(FAST, **changes)], agreement=0.995, map_loss=0.005)

    assert judged[1].is_chosen
    assert words in judged[2].verdict


def test_a_wish_is_followed_though_another_is_faster() -> None:
    judged = built.choose([REFERENCE, EXACT, FAST], agreement=0.995, map_loss=0.005, wished="openvino fp32")

    assert judged[1].is_chosen


def test_the_reference_serves_when_nothing_else_fits() -> None:
    failed = replace(EXACT, verdict="failed: no such operator")

    judged = built.choose([REFERENCE, failed], agreement=0.995, map_loss=0.005)

    assert judged[0].is_chosen
    assert judged[1].verdict == "failed: no such operator"


def test_a_report_is_read_back_for_the_same_model_versions_and_processor_only(tmp_path: Path) -> None:
    manifest = fakes.make_manifest(tmp_path / "models")
    report = Report(manifest.key, manifest.digest, built.processor(), built.versions(), 200, (REFERENCE, FAST))
    built.write(tmp_path, manifest, report)

    assert built.read(tmp_path, manifest) == report
    for other in (
        replace(report, processor="another"),
        replace(report, versions={"openvino": "1"}),
        replace(report, digest="sha256:other"),
    ):
        built.write(tmp_path, manifest, other)
        assert built.read(tmp_path, manifest) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"candidates": []}', '{"candidates": [{"speed": 1}]}'])
def test_a_damaged_report_counts_as_none(tmp_path: Path, text: str) -> None:
    manifest = fakes.make_manifest(tmp_path / "models")
    path = built.folder(tmp_path, manifest) / built.REPORT_FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)

    assert built.read(tmp_path, manifest) is None


def test_classifiers_agree_where_the_best_label_is_the_same() -> None:
    reference = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    other = np.array([[0.8, 0.2], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])

    found = agreement.of_probabilities(reference, other)

    assert found.agreement == 0.75
    assert found.largest_difference == pytest.approx(0.2)


def box(left: float, label: str = "cone", score: float = 0.9) -> Detection:
    return Detection(label, score, Box(left, 0, left + 10, 10))


def test_detectors_agree_where_the_same_boxes_are_found() -> None:
    reference = [[box(0), box(50)], [box(0)]]
    other = [[box(1, score=0.8), box(50)], []]

    found = agreement.of_detections(reference, other)

    assert found.agreement == pytest.approx(2 / 3)
    assert found.largest_difference == pytest.approx(0.1)
    assert found.map_loss == pytest.approx(1 / 3)


def test_a_box_of_another_label_is_not_found_again() -> None:
    assert agreement.of_detections([[box(0)]], [[box(0, label="sign")]]).agreement == 0


def test_one_box_cannot_be_found_twice() -> None:
    found = agreement.of_detections([[box(0), box(0, score=0.8)]], [[box(0)]])

    assert found.agreement == 0.5


def test_nothing_to_find_is_full_agreement() -> None:
    assert agreement.of_detections([[], []], [[], [box(0)]]).agreement == 1
