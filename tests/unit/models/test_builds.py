"""Which candidate serves: the fastest within the tolerance, or the requested one; of another machine what suits any."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.inference.results import Box, Detection
from app.models import builds
from app.models.builds import Candidate, Progress, Report
from app.models.manifests import Manifest
from app.runtimes.build import agreement
from app.storage import files
from tests import fakes

REFERENCE = Candidate("torch", "fp32", images_per_second=40)
EXACT = Candidate("openvino", "fp32", "fp32.xml", images_per_second=65)
FAST = Candidate("openvino", "int8", "int8.xml", images_per_second=200, agreement=0.999, map_loss=0.001)


def names(candidates: list[Candidate]) -> dict[str, str]:
    return {each.name: each.verdict for each in candidates}


def test_the_fastest_within_the_tolerance_is_chosen() -> None:
    judged = builds.choose([REFERENCE, EXACT, FAST], agreement=0.995, map_loss=0.005)

    assert [each.is_chosen for each in judged] == [False, False, True]
    assert names(judged)["openvino fp32"] == "slower than openvino int8"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"agreement": 0.99}, "agrees in 99.00%"), ({"map_loss": 0.02}, "loses 2.00 points of mAP")],
)
def test_a_fast_but_unfaithful_one_is_left_out_and_says_why(changes: dict[str, float], words: str) -> None:
    judged = builds.choose([REFERENCE, EXACT, replace(FAST, **changes)], agreement=0.995, map_loss=0.005)

    assert judged[1].is_chosen
    assert words in judged[2].verdict


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (1, "chosen on 1 image; give at least 50 samples"),
        (49, "chosen on 49 images; give at least 50 samples"),
        (50, "chosen"),
    ],
)
def test_a_choice_on_few_images_says_how_little_is_known(images: int, words: str) -> None:
    judged = builds.choose([REFERENCE, EXACT], agreement=0.995, map_loss=0.005, images=images)

    assert judged[1].verdict == words


def test_a_wish_is_followed_though_another_is_faster() -> None:
    judged = builds.choose([REFERENCE, EXACT, FAST], agreement=0.995, map_loss=0.005, requested="openvino fp32")

    assert judged[1].is_chosen


def test_the_reference_serves_when_nothing_else_fits() -> None:
    failed = replace(EXACT, verdict="failed: no such operator")

    judged = builds.choose([REFERENCE, failed], agreement=0.995, map_loss=0.005)

    assert judged[0].is_chosen
    assert judged[1].verdict == "failed: no such operator"


def make_report(manifest: Manifest, **changes: Any) -> Report:
    report = Report(manifest.key, manifest.digest, builds.processor(), builds.versions(), 200, (REFERENCE, FAST))
    return replace(report, **changes)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return fakes.make_manifest(tmp_path / "models")


def test_a_wish_that_could_not_be_computed_is_not_followed() -> None:
    failed = replace(EXACT, images_per_second=0.0, verdict="failed: no such operator")

    judged = builds.choose([REFERENCE, failed], agreement=0.995, map_loss=0.005, requested=failed.name)

    assert judged[0].is_chosen


def test_a_report_is_read_back_for_the_same_model_versions_and_processor_only(
    tmp_path: Path, manifest: Manifest
) -> None:
    place = builds.folder(tmp_path, manifest)
    report = make_report(manifest)
    builds.write(place, report)

    assert builds.read(tmp_path, manifest) == report
    for changes in ({"processor": "another"}, {"versions": {"openvino": "1"}}, {"digest": "sha256:other"}):
        builds.write(place, replace(report, **changes))
        assert builds.read(tmp_path, manifest) is None


def test_a_report_is_parsed_once_until_another_takes_its_place(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read = files.read
    monkeypatch.setattr(files, "read", lambda path, most: reads.append(path) or read(path, most))
    place = builds.folder(tmp_path, manifest)
    builds.write(place, make_report(manifest, images=100))

    before = [builds.read(tmp_path, manifest) for _ in range(3)]
    builds.write(place, make_report(manifest, images=101))

    assert [report and report.images for report in before] == [100, 100, 100]
    assert len(reads) == 1
    assert [report.images for report in builds.read_all(tmp_path, manifest)] == [101]
    path = place / builds.REPORT_FILE
    path.write_text("{")
    assert builds.read_all(tmp_path, manifest) == []
    path.unlink()
    assert builds.read_all(tmp_path, manifest) == []


def test_what_a_model_brings_counts_where_nothing_was_made_here(tmp_path: Path, manifest: Manifest) -> None:
    shipped = make_report(manifest, images=100)
    builds.write(builds.shipped_folder(manifest), shipped)
    assert builds.read(tmp_path, manifest) == shipped

    builds.write(builds.folder(tmp_path, manifest), make_report(manifest))

    found = builds.read(tmp_path, manifest)
    assert found is not None
    assert found.images == 200
    assert found.folder == builds.folder(tmp_path, manifest)


def test_a_file_is_found_where_the_report_says(tmp_path: Path, manifest: Manifest) -> None:
    report = make_report(manifest, folder=tmp_path)

    assert report.path(EXACT, manifest) == tmp_path / "fp32.xml"
    assert report.path(replace(EXACT, is_shipped=True), manifest) == manifest.directory / "built" / "fp32.xml"


@pytest.mark.parametrize(
    ("runtime", "changes", "is_usable"),
    [
        ("openvino", {"processor": "another"}, True),
        ("openvino", {"versions": {"openvino": "1"}}, False),
        ("aotinductor", {}, True),
        # Machine code for one processor may be none for another.
        ("aotinductor", {"processor": "another"}, False),
        ("torch-fused", {}, False),
    ],
)
def test_files_are_used_again_where_the_libraries_fit(
    manifest: Manifest, runtime: str, changes: dict[str, Any], *, is_usable: bool
) -> None:
    candidate = Candidate(runtime, "fp32", "a.file", "a" * 64)

    assert builds.is_usable_here(make_report(manifest, **changes), candidate) is is_usable


def test_what_computes_alike_everywhere_is_offered_elsewhere(manifest: Manifest) -> None:
    bf16 = Candidate("openvino", "bf16", "fp32.xml", "a" * 64, images_per_second=300)
    exact, fast = replace(EXACT, sha256="a" * 64), replace(FAST, sha256="a" * 64)
    report = make_report(manifest, processor="another", candidates=(REFERENCE, bf16, exact, fast))

    assert builds.portable(report) == [fast, exact]
    # What was made part of the build comes first; what was not faithful there does not come.
    chosen = replace(exact, is_chosen=True)
    assert builds.portable(replace(report, candidates=(REFERENCE, chosen, fast))) == [chosen, fast]
    assert builds.portable(replace(report, candidates=(REFERENCE, exact, replace(fast, is_faithful=False)))) == [exact]
    assert builds.portable(replace(report, versions={"openvino": "1"})) == []


def test_hidden_instructions_make_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    whole = builds.processor()

    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")

    assert builds.processor() == f"{whole}, ONEDNN_MAX_CPU_ISA=AVX2"


def test_only_one_builds_at_a_time(tmp_path: Path) -> None:
    first = builds.lock(tmp_path)
    assert first is not None

    assert builds.lock(tmp_path) is None
    assert builds.is_locked(tmp_path)

    first.close()
    assert not builds.is_locked(tmp_path)


def test_a_build_that_was_killed_has_failed(tmp_path: Path, manifest: Manifest) -> None:
    builds.write_progress(builds.folder(tmp_path, manifest), Progress("running", "openvino int8"))
    lock = builds.lock(tmp_path)
    running = builds.read_progress(tmp_path, manifest)
    assert running is not None
    assert lock is not None
    lock.close()

    killed = builds.read_progress(tmp_path, manifest)

    assert running.state == "running"
    assert killed is not None
    assert (killed.state, killed.error) == ("failed", "It ended while it was at: openvino int8.")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"candidates": []}', '{"candidates": [{"speed": 1}]}'])
def test_a_damaged_report_counts_as_none(tmp_path: Path, manifest: Manifest, text: str) -> None:
    path = builds.folder(tmp_path, manifest) / builds.REPORT_FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)

    assert builds.read(tmp_path, manifest) is None


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

    found = agreement.of_detections(reference, other, threshold=0.5)

    assert found.agreement == pytest.approx(2 / 3)
    assert found.largest_difference == pytest.approx(0.1)
    assert found.map_loss == pytest.approx(1 / 3)
    assert found.map_50 is None


def test_a_score_just_below_the_threshold_is_not_lost_but_one_far_below_is() -> None:
    reference = [[box(0, score=0.52), box(50, score=0.52)]]

    found = agreement.of_detections(reference, [[box(0, score=0.46), box(50, score=0.3)]], threshold=0.5)

    assert found.agreement == 0.5


def test_boxes_below_the_threshold_need_not_be_found_again() -> None:
    assert agreement.of_detections([[box(0), box(50, score=0.3)]], [[box(0)]], threshold=0.5).agreement == 1


def test_with_true_boxes_only_what_is_lost_to_them_counts() -> None:
    truth = [[box(0), box(50)]]
    # The reference finds one of two and something that is not there; the other way both of the two.
    reference, other = [[box(0), box(90, score=0.6)]], [[box(0), box(50)]]

    better = agreement.of_detections(reference, other, threshold=0.5, truth=truth)
    worse = agreement.of_detections(other, reference, threshold=0.5, truth=truth)

    assert (better.map_50, better.map_loss) == (1, 0)
    assert (worse.map_50, worse.map_loss) == (pytest.approx(0.5), pytest.approx(0.5))


def test_a_box_of_another_label_is_not_found_again() -> None:
    assert agreement.of_detections([[box(0)]], [[box(0, label="sign")]], threshold=0.5).agreement == 0


def test_one_box_cannot_be_found_twice() -> None:
    found = agreement.of_detections([[box(0), box(0, score=0.8)]], [[box(0)]], threshold=0.5)

    assert found.agreement == 0.5


def test_nothing_to_find_is_full_agreement() -> None:
    assert agreement.of_detections([[], []], [[], [box(0)]], threshold=0.5).agreement == 1


def test_versions_are_those_that_were_installed() -> None:
    assert builds.versions() == {"openvino": metadata.version("openvino"), "torch": metadata.version("torch")}
