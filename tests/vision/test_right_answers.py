"""A model is compared with right answers, not only with itself: marks, moved pictures, samples with their answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from app.cli.model import command
from app.errors import GoldenCheckError, ModelLoadError
from app.inference import images
from app.inference.images import Picture
from app.models import manifests
from app.models.manifests import InputSpec
from app.runtimes.checks import geometry, known_answers, proof
from app.runtimes.importing.add import NewModel, add_model
from app.runtimes.registry import load_model

STORE = Path(__file__).parents[2] / "models"
DETECTOR = STORE / "site-safety-detector" / "1"
CLASSIFIER = STORE / "site-safety-classifier" / "1"
LABELS = ("barrier", "cone", "helmet", "sign", "vest")
INPUTS = [
    InputSpec("crop", size=320, resize_size=360),
    InputSpec("letterbox", size=320),
    InputSpec("fit", min_size=240, max_size=400),
    InputSpec("fit", min_size=320, max_size=320),
]
CROP = INPUTS[0]


@pytest.fixture(params=INPUTS, ids=lambda spec: f"{spec.kind}-{spec.size or spec.max_size}")
def model(request):
    """The trained detector, behind every way of scaling."""
    return load_model(replace(manifests.read(DETECTOR), input=request.param))


@pytest.fixture
def photographs():
    return [np.asarray(Image.open(path)) for path in sorted((DETECTOR / "samples").glob("*.jpg"))[:100:25]]


@pytest.fixture
def without_offset(monkeypatch):
    """Put the fault back by hand that the check must find: boxes of a crop begin at the crop's corner."""
    right = Picture.to_original
    monkeypatch.setattr(
        Picture, "to_original", lambda picture, box: right(replace(picture, left=0.0, top=0.0), box), raising=True
    )


def few_samples(folder: Path) -> Path:
    """Eight of the detector's pictures with their objects."""
    folder.mkdir(exist_ok=True)
    rows = json.loads((DETECTOR / "samples" / "index.json").read_text())[:8]
    for row in rows:
        shutil.copy(DETECTOR / "samples" / row["file"], folder)
    (folder / "index.json").write_text(json.dumps(rows))
    return folder


def crops(folder: Path, label_of=lambda label: label) -> Path:
    """The demonstration's pictures of one thing each, with their labels."""
    folder.mkdir(exist_ok=True)
    names = ("cone", "helmet", "vest")
    for name in names:
        shutil.copy(STORE / "samples" / f"{name}.jpg", folder)
    rows = [{"file": f"{name}.jpg", "label": label_of(name)} for name in names]
    (folder / "index.json").write_text(json.dumps(rows))
    return folder


def added(store, name="d", version="1", *, force=False, **changes):
    said: list[str] = []
    manifest = add_model(
        NewModel(
            "narrow_fcos",
            str(DETECTOR / "weights.safetensors"),
            changes.pop("labels", LABELS),
            name,
            version,
            **changes,
        ),
        store,
        force=force,
        progress=said.append,
    )
    return manifest, said


# ── geometry ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_marks_come_back_to_their_places(model):
    geometry.check_marks(model.manifest.input, "d@1")


def test_boxes_follow_enlarged_and_moved_pictures(model, photographs):
    tallies = geometry.check_moves(model, photographs)

    assert set(tallies) == {"enlarged", "moved"}
    assert all(each.expected >= 4 and each.found >= 0.8 * each.expected for each in tallies.values())


def test_a_crop_without_its_offset_is_found_by_marks(without_offset):
    with pytest.raises(GoldenCheckError, match=r"would be answered at .* where the object is at"):
        geometry.check_marks(CROP, "d@1")


def test_a_crop_without_its_offset_is_found_by_moved_pictures(without_offset, photographs):
    model = load_model(replace(manifests.read(DETECTOR), input=CROP))

    with pytest.raises(
        GoldenCheckError, match=r"only 0 of \d+ boxes are at the right place in pictures that were moved"
    ):
        geometry.check_moves(model, photographs)


def test_a_crop_without_its_offset_cannot_be_added(without_offset, tmp_path):
    with pytest.raises(GoldenCheckError, match="would be answered"):
        added(tmp_path, input_spec=CROP)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("kind", ["letterbox", "fit"])
def test_sides_that_were_mixed_up_are_found(monkeypatch, kind):
    right = Picture.to_original

    def mixed(picture, box):
        return right(replace(picture, scale_x=picture.scale_y * 1.05), box)

    monkeypatch.setattr(Picture, "to_original", mixed)
    spec = next(each for each in INPUTS if each.kind == kind)

    with pytest.raises(GoldenCheckError, match="would be answered"):
        geometry.check_marks(spec, "d@1")


def test_pictures_that_were_not_turned_upright_are_found(monkeypatch):
    monkeypatch.setattr(images, "TO_UPRIGHT", {})

    with pytest.raises(GoldenCheckError, match="Orientation 6"):
        geometry.check_marks(CROP, "d@1")


# ── samples with right answers ───────────────────────────────────────────────────────────────────────────────────────


def test_samples_of_a_detector_are_checked_when_it_is_added(tmp_path):
    manifest, said = added(tmp_path / "models", sample_pictures=few_samples(tmp_path / "given"))

    assert "8 sample pictures, 8 with a right answer" in said
    assert [line for line in said if "of 8 samples right" in line], said
    assert [line for line in said if line.startswith("boxes follow their objects: ")], said
    assert len(list((manifest.directory / "samples").iterdir())) == 9


def test_labels_in_another_order_are_found_by_the_samples(tmp_path):
    given = few_samples(tmp_path / "given")

    with pytest.raises(GoldenCheckError, match=r"only 0 of 8 samples right; wrong: 000.jpg: 0 of \d objects found"):
        added(tmp_path / "models", sample_pictures=given, labels=("vest", "barrier", "cone", "helmet", "sign"))
    assert not (tmp_path / "models" / "d").exists()


def test_samples_of_a_classifier_name_what_was_wrong(tmp_path):
    manifest = replace(manifests.read(CLASSIFIER), directory=tmp_path / "m" / "1")
    crops_of = {"cone": "cone", "helmet": "vest", "vest": "vest"}
    shutil.copytree(CLASSIFIER, manifest.directory, ignore=shutil.ignore_patterns("samples"))
    crops(manifest.directory / "samples", crops_of.get)

    verdict = known_answers.check(load_model(manifest))

    assert verdict.words() == "2 of 3 samples right; wrong: helmet.jpg: helmet instead of vest"


def test_no_object_where_there_is_none_is_right_and_a_false_box_is_wrong(tmp_path, read_sample):
    manifest = replace(manifests.read(DETECTOR), directory=tmp_path / "m" / "1")
    shutil.copytree(DETECTOR, manifest.directory, ignore=shutil.ignore_patterns("samples"))
    (manifest.directory / "samples").mkdir()
    Image.new("RGB", (320, 240), (90, 90, 90)).save(manifest.directory / "samples" / "empty.png")
    shutil.copy(STORE / "samples" / "site-morning.jpg", manifest.directory / "samples")
    rows = [{"file": "empty.png", "objects": []}, {"file": "site-morning.jpg", "objects": []}]
    (manifest.directory / "samples" / "index.json").write_text(json.dumps(rows))

    verdict = known_answers.check(load_model(manifest))

    assert (verdict.right, verdict.judged) == (1, 2)
    assert "site-morning.jpg" in verdict.wrong[0]
    assert verdict.wrong[0].endswith("boxes are no objects")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ('[{"file": "none.jpg", "objects": []}]', "names 'none.jpg', which does not lie beside it"),
        ('[{"file": "000.jpg", "label": "cone"}]', "'objects'"),
        ('[{"file": "000.jpg", "objects": [{"label": "dog", "box": {}}]}]', "'dog' is none of the labels"),
        ('{"000.jpg": "cone"}', "cannot be used"),
        ("[", "cannot be used"),
    ],
)
def test_an_index_that_cannot_be_used_is_refused_by_name(tmp_path, rows, words):
    given = few_samples(tmp_path / "given")
    (given / "index.json").write_text(rows)

    with pytest.raises(ModelLoadError, match=r"index\.json") as caught:
        added(tmp_path / "models", sample_pictures=given)
    assert words in caught.value.message
    assert not (tmp_path / "models" / "d").exists()


def test_a_folder_without_pictures_is_refused_before_anything_else(tmp_path):
    with pytest.raises(ModelLoadError, match="is no folder"):
        added(tmp_path / "models", sample_pictures=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelLoadError, match="holds 0 pictures"):
        added(tmp_path / "models", sample_pictures=tmp_path / "empty")


def test_samples_are_carried_over_from_the_version_before(tmp_path):
    store = tmp_path / "models"
    added(store, sample_pictures=few_samples(tmp_path / "given"))

    second, said = added(store, version="2")
    third, told = added(store, version="3", labels=("a", "b", "c", "d", "e"))

    assert "the sample pictures of d@1 are carried over" in said
    assert [line for line in said if "of 8 samples right" in line], said
    assert len(known_answers.read(second)) == 8
    assert "the sample pictures of d@2 are carried over" in told
    assert [line for line in told if line.startswith("their right answers are not: index.json")], told
    assert known_answers.read(third) == []


def test_a_version_that_is_replaced_keeps_its_samples(tmp_path):
    store = tmp_path / "models"
    added(store, sample_pictures=few_samples(tmp_path / "given"))

    manifest, said = added(store, force=True)

    assert "the sample pictures of d@1 are carried over" in said
    assert len(known_answers.read(manifest)) == 8


def test_random_weights_are_checked_on_marks_only(tmp_path):
    said: list[str] = []

    add_model(NewModel("narrow_fcos", "random", LABELS, "d", "1"), tmp_path, progress=said.append)

    assert "its weights are random, so its answers are not checked" in said


def test_a_long_check_ends_and_says_how_far_it_got(tmp_path):
    model = load_model(manifests.read(DETECTOR))
    seconds = iter(range(0, 10_000, 15))

    verdict = known_answers.check(model, clock=lambda: next(seconds))

    assert verdict.judged == 2
    assert "(200 have a right answer)" in verdict.words()


def test_proof_of_the_demonstration_says_what_was_compared():
    said: list[str] = []

    proof.prove(load_model(manifests.read(CLASSIFIER)), said.append)

    assert said == ["no sample has a right answer to compare with (samples/index.json)"]


def test_command_takes_samples_and_the_share_that_must_be_right(tmp_path):
    given = crops(tmp_path / "given", {"cone": "vest", "helmet": "vest", "vest": "vest"}.get)
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS))
    arguments = ["add", "--arch", "narrow_resnet10", "--weights", str(CLASSIFIER / "weights.safetensors")]
    arguments += ["--labels", str(labels), "--name", "c", "--version", "1", "--store", str(tmp_path / "models")]
    arguments += ["--samples", str(given)]

    refused = CliRunner().invoke(command, arguments)
    taken = CliRunner().invoke(command, [*arguments, "--least-right", "0.3"])

    assert refused.exit_code == 1
    assert "only 1 of 3 samples right" in refused.stderr
    assert taken.exit_code == 0, taken.stderr
    assert "1 of 3 samples right" in taken.output
    assert manifests.read(tmp_path / "models" / "c" / "1").tolerance.right == 0.3
