"""The page without a script: what the plain form answers, with a fake engine behind the real predictor."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from app import config, tasks
from app.decoding.decoder import Decoder
from app.engine.client import EngineAnswer
from app.errors import EngineAwayError
from app.inference.pipeline import Predictor
from app.inference.results import Box, Detection, DetectOptions, Options, Prediction
from app.models.manifests import Manifest
from app.web import middleware
from app.web.middleware.security_headers import CONTENT_SECURITY_POLICY
from app.web.pages import curl, drawing, pages, previews
from app.web.pages.models import Section
from tests import bad_input

LABELS = ("barrier", "cone", "helmet")
INPUT_PX = 320
MANIFEST = """
name = "{name}"
version = "1"
task = "{task}"
architecture = "fake"
weights = "none"
sha256 = "{digest}"
labels = ["barrier", "cone", "helmet"]
demonstration = true
[input]
kind = "letterbox"
size = 320
"""
OF_THE_PICTURE = [case for case in bad_input.cases(1024) if case.image is not None and case.name != "body_too_large"]


class FakeEngine:
    """Finds one cone in the left half of every picture and calls every picture a helmet; remembers the options."""

    def __init__(self) -> None:
        self.asked: list[Options] = []
        self.is_away = False

    def predict(
        self,
        manifest: Manifest,
        images: Sequence[np.ndarray],
        options: Sequence[Options],
        deadline: float,
        sizes: Sequence[tuple[int, int]] = (),
    ) -> list[EngineAnswer]:
        if self.is_away:
            raise EngineAwayError("The engine does not answer.", hint="It is starting.", retry_after_seconds=7)
        self.asked += options
        return [self._one(manifest.task, image) for image in images]

    def status(self) -> dict[str, Any]:
        return {"models": []}

    @staticmethod
    def _one(task: str, image: np.ndarray) -> EngineAnswer:
        if task == "classify":
            return EngineAnswer([Prediction("helmet", 0.9123), Prediction("cone", 0.05)], 0.1, 2.0, 1)
        cone = Box(0, INPUT_PX / 4, INPUT_PX / 2, INPUT_PX / 2)
        return EngineAnswer([Detection("cone", 0.9712, cone)], 0.1, 2.0, 1)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> FlaskClient:
    for name, task in (("finder", "detect"), ("namer", "classify")):
        folder = tmp_path / "models" / name / "1"
        folder.mkdir(parents=True)
        (folder / "manifest.toml").write_text(MANIFEST.format(name=name, task=task, digest="0" * 64))
    samples = tmp_path / "models" / "samples"
    samples.mkdir()
    (samples / "yard.jpg").write_bytes(bad_input.good_image())
    (samples / "index.json").write_text(json.dumps({"images": [{"file": "yard.jpg"}, {"file": "../finder"}]}))
    settings = config.load({"ENV": "test", "MODELS_DIR": str(tmp_path / "models"), "STATE_DIR": str(tmp_path)})
    app = Flask("app", static_folder=str(config.ROOT / "app" / "static"))
    app.extensions["predictor"] = Predictor(settings, engine)
    app.extensions["settings"] = settings
    middleware.init_app(app, settings, app.extensions["predictor"].decoder.budget)
    app.register_blueprint(pages)
    return app.test_client()


def upload(client: FlaskClient, *pictures: bytes, name: str = "yard.jpg", **fields: str) -> TestResponse:
    files = [(io.BytesIO(picture), name) for picture in pictures]
    return client.post("/upload", data={"image_upload": files, **fields})


def test_page_offers_tasks_models_and_samples(client: FlaskClient) -> None:
    page = client.get("/").text

    assert 'action="/upload"' in page
    assert 'name="image_upload"' in page
    assert 'value="finder@1"' in page
    assert 'value="namer@1"' in page
    assert 'src="/samples/yard.jpg"' in page
    assert "Demonstration model: trained on rendered scenes" in page


def test_page_says_that_the_engine_is_away(client: FlaskClient) -> None:
    assert "Engine away" in client.get("/").text


def test_upload_draws_the_box_over_the_picture(client: FlaskClient) -> None:
    response = upload(client, bad_input.good_image(640, 320))

    assert response.status_code == 200
    assert 'src="data:image/jpeg;base64,' in response.text
    # The input is a square of 320 pixels whose lower half is empty, so the box is twice as high in the picture.
    assert re.search(r'<rect class="box-edge" x="0.00%" y="50.00%" width="50.00%" height="50.00%"', response.text)
    assert '<span class="tag">cone<b>97%</b></span>' in response.text
    assert "1 object" in response.text


def test_upload_of_several_answers_each(client: FlaskClient) -> None:
    response = upload(client, bad_input.good_image(), bad_input.good_image(), bad_input.good_image())

    assert response.text.count('class="box-edge"') == 3


def test_upload_names_a_picture(client: FlaskClient) -> None:
    response = upload(client, bad_input.good_image(), task="classify")

    assert "Most likely, with 91.2%" in response.text
    assert "version 1" in response.text


def test_a_chosen_model_decides_the_task(client: FlaskClient) -> None:
    response = upload(client, bad_input.good_image(), task="detect", model="namer@1")

    assert "Most likely" in response.text


@pytest.mark.parametrize("case", OF_THE_PICTURE, ids=lambda case: case.name)
def test_upload_says_why_a_picture_is_refused_and_takes_the_next(client: FlaskClient, case: bad_input.BadInput) -> None:
    refused = upload(client, case.image or b"")
    fine = upload(client, bad_input.good_image())

    assert refused.status_code == case.status
    assert case.code in refused.text
    assert re.search(r'<p class="message">[^<]{10,}</p>\s*<p class="hint">[^<]{10,}</p>', refused.text)
    assert fine.status_code == 200


def test_a_refused_picture_leaves_the_others_alone(client: FlaskClient) -> None:
    response = upload(client, bad_input.good_image(), b"This is a letter.", bad_input.good_image())

    assert response.status_code == 415
    assert response.text.count('class="box-edge"') == 2
    assert response.text.count("image_unsupported") == 1


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"score_threshold": "1.5"}, 422, "score_threshold"),
        ({"task": "paint"}, 422, f"One of: {', '.join(tasks.OFFERED)}."),
        ({"model": "nobody"}, 404, "nobody"),
        ({"sample": "nothing.jpg"}, 422, "yard.jpg"),
    ],
)
def test_upload_answers_a_wrong_wish_with_a_page(
    client: FlaskClient, fields: dict[str, str], status: int, words: str
) -> None:
    response = upload(client, bad_input.good_image(), **fields)

    assert response.status_code == status
    assert response.mimetype == "text/html"
    assert words in response.text


def test_upload_without_a_picture_asks_for_one(client: FlaskClient) -> None:
    response = client.post("/upload", data={"image_upload": (io.BytesIO(b""), "")})

    assert response.status_code == 400
    assert "choose one or several images" in response.text


def test_upload_says_when_to_come_back_while_the_engine_is_away(client: FlaskClient, engine: FakeEngine) -> None:
    engine.is_away = True

    response = upload(client, bad_input.good_image())

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "7"
    assert "Try again in 7 s." in response.text


def test_a_zero_is_a_zero_and_an_empty_field_is_the_default(client: FlaskClient, engine: FakeEngine) -> None:
    upload(client, bad_input.good_image(), score_threshold="0", iou_threshold="", top_k="3")

    assert engine.asked == [DetectOptions(score_threshold=0.0)]


def test_reloading_an_answer_starts_over(client: FlaskClient) -> None:
    response = client.get("/upload")

    assert (response.status_code, response.location) == (303, "/")


def test_a_sample_is_answered_with_one_press(client: FlaskClient) -> None:
    response = client.post("/upload", data={"sample": "yard.jpg"})

    assert 'class="box-edge"' in response.text


@pytest.mark.parametrize("name", ["index.json", "nothing.jpg", "..%2ffinder%2f1%2fmanifest.toml", "../finder"])
def test_only_samples_of_the_index_are_served(client: FlaskClient, name: str) -> None:
    with client.get("/samples/yard.jpg") as there, client.get(f"/samples/{name}") as elsewhere:
        assert there.mimetype == "image/jpeg"
        assert elsewhere.status_code == 404


def test_no_page_holds_inline_styles_or_scripts_but_that_of_the_policy(client: FlaskClient) -> None:
    for answer in (client.get("/"), upload(client, bad_input.good_image()), client.get("/nowhere")):
        scripts = re.findall(r"<script>(.*?)</script>", answer.text, re.S)
        digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
        rest = re.sub(r"<script>.*?</script>", "", answer.text, flags=re.S)

        # What is no page has none.
        assert len(digests) == (answer.mimetype == "text/html")
        assert all(f"'sha256-{digest}'" in CONTENT_SECURITY_POLICY for digest in digests)
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?![^>]*\ssrc=)", rest)


def test_a_file_name_stays_text(client: FlaskClient) -> None:
    response = upload(client, bad_input.good_image(), name="<b>'yard'</b>.jpg")

    assert "<b>'yard'" not in response.text
    assert "&lt;b&gt;" in response.text


def test_curl_command_is_what_the_shell_reads() -> None:
    command = curl.command("http://localhost/v1/detect", ["a 'b'; c.jpg"], {"score_threshold": "0.3"})

    assert shlex.split(command.replace("\\\n", "")) == [
        *("curl", "-F", "image=@\"a 'b'; c.jpg\""),
        *("-F", "score_threshold=0.3", "http://localhost/v1/detect"),
    ]


def test_preview_is_small_and_upright() -> None:
    photo = Image.new("RGB", (2000, 1000), "white")
    exif = photo.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=exif)

    decoder = Decoder.of(config.describe("test"))
    made = previews.preview(decoder, buffer.getvalue(), 1000, 2000, time.monotonic() + 30)

    shown = Image.open(io.BytesIO(base64.b64decode(made.href.partition(",")[2])))
    assert shown.size == (480, 960)
    assert (made.width, made.height) == (280, 560)


def test_a_label_keeps_its_colour_and_unknown_ones_have_one() -> None:
    assert [drawing.hue(label, LABELS) for label in (*LABELS, "dragon")] == [0, 1, 2, 0]


def test_small_boxes_lie_on_top() -> None:
    small, large = Box(10, 10, 20, 20), Box(0, 0, 90, 90)

    drawn = drawing.draw([Detection("cone", 0.9, small), Detection("barrier", 0.5, large)], 100, 100, LABELS)

    assert [box.label for box in drawn] == ["barrier", "cone"]


def test_the_page_of_models_names_no_figure_that_has_no_value_yet() -> None:
    nothing = {"mean": None, "reference_mean": None, "psi": None, "by_chance": None}
    drift = {"images": 1, "figures": {"brightness": nothing, "size": {**nothing, "mean": 0.5}}}
    section = Section(SimpleNamespace(drift=drift), SimpleNamespace(), [])  # type: ignore[arg-type]

    assert [name for name, _ in section.figures] == ["Size, megapixels"]


def test_columns_of_the_drift_that_hold_nothing_are_left_out() -> None:
    fresh = {"mean": 0.5, "reference_mean": None, "psi": None, "by_chance": None}
    known = {"mean": 0.5, "reference_mean": 0.4, "psi": 0.02, "by_chance": 0.1}

    def columns(*rows: dict[str, float | None]) -> list[str]:
        drift = {"images": 9, "figures": dict(zip(("brightness", "size"), rows, strict=True))}
        return [key for key, _ in Section(SimpleNamespace(drift=drift), SimpleNamespace(), []).columns]  # type: ignore[arg-type]

    assert columns(fresh, fresh) == ["mean"]
    assert columns(fresh, known) == ["mean", "reference_mean", "psi", "by_chance"]


@pytest.mark.parametrize(
    ("name", "least", "most"), [("max_results", 0, 1000), ("min_width", 0, 1_000_000), ("iou_threshold", 0, 1)]
)
def test_ranges_of_the_form_are_those_of_the_api(client: FlaskClient, name: str, least: int, most: int) -> None:
    assert re.search(rf'name="{name}" min="{least}" max="{most}"', client.get("/").text)


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"label": "cone", "count": 3}, ["cone", "count 3"]),
        ({"value": 0.7163792848587036}, ["value 0.71638"]),
        ({"least_depth": 2.0, "box": {"x_min": 1}, "sides": [1, 2.5]}, ["least depth 2", "sides [1, 2.5]"]),
        (list(range(20)), ["[0, 1, 2, 3, 4, 5, 6, 7, …]"]),
        (0.5, ["0.5"]),
    ],
)
def test_row_of_a_task_that_draws_nothing_is_shown_in_words_and_numbers(row: Any, shown: list[str]) -> None:
    assert drawing.cells(row) == shown
