"""POST /v1/ensemble: whom it asks, what it merges, and what it says of those who did not answer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app import tasks
from app.engine.client import EngineAnswer
from app.errors import EngineAwayError
from app.inference.results import Box, ClassifyOptions, Detection, DetectOptions, Prediction
from app.tasks.classify import Classify
from tests import fakes
from tests.fakes import FakeEngine, picture


class Opinions(FakeEngine):
    """Each model has an opinion of its own."""

    def predict(self, manifest: Any, images: Any, options: Any, deadline: float, *more: Any) -> list[EngineAnswer]:
        super().predict(manifest, images, options, deadline, *more)
        score = {"one": 0.9, "two": 0.5, "first": 0.6, "second": 0.2}[manifest.name]
        if manifest.task == "detect":
            return [EngineAnswer([Detection("cone", score, Box(0, 0, 32, 16))], 0.1, 2.0, 1) for _ in images]
        rows = [Prediction("cone", score), Prediction("vest", 1 - score)]
        return [EngineAnswer(rows[: each.top_k], 0.1, 2.0, 1) for each in options]


@pytest.fixture
def engine() -> Opinions:
    """Two detectors and two classifiers that do not agree."""
    return Opinions()


@pytest.fixture
def client(tmp_path: Path, engine: Opinions) -> FlaskClient:
    """A caller of an app with four models and a service that is not there."""
    for name, task in (("one", "detect"), ("two", "detect"), ("first", "classify"), ("second", "classify")):
        fakes.write_model(tmp_path / "models", name, task=task)
    return fakes.make_app(tmp_path, engine, ensemble_upstreams=("gone=http://127.0.0.1:1",)).test_client()


def ask(
    client: FlaskClient, status: int = 200, headers: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    response = client.post(
        "/v1/ensemble", query_string=options, data=picture(), content_type="image/jpeg", headers=headers
    )
    assert response.status_code == status, response.data
    found: dict[str, Any] = response.get_json()
    return found


def test_two_detectors_answer_as_one(client: FlaskClient, engine: Opinions) -> None:
    found = ask(client, members="one,two")

    assert [each["name"] for each in found["members"]] == ["one", "two"]
    assert [each["model"]["name"] for each in found["members"]] == ["one", "two"]
    assert found["missing"] == []
    assert found["results"] == [
        {
            "width": 64,
            "height": 48,
            "detections": [{"label": "cone", "score": 0.7, "box": {"x_min": 0, "y_min": 0, "x_max": 64, "y_max": 32}}],
        }
    ]
    assert len(engine.asked) == 2


def test_all_are_asked_when_nobody_is_named_and_who_is_away_is_named_with_the_reason(
    client: FlaskClient, failed_parts: list[tuple[str, str]]
) -> None:
    found = ask(client)

    assert [each["name"] for each in found["members"]] == ["one", "two"]
    assert [(each["name"], each["kind"], each["code"]) for each in found["missing"]] == [
        ("gone", "upstream", "upstream_failed")
    ]
    assert "cannot be reached" in found["missing"][0]["reason"]
    assert failed_parts == [("member", "upstream_failed")]


def test_labels_are_averaged_over_all_of_them_and_cut_off_afterwards(client: FlaskClient, engine: Opinions) -> None:
    found = ask(client, task="classify", members="first,second", top_k=1)

    assert found["results"][0]["predictions"] == [{"label": "vest", "score": 0.6}]
    assert {requested for asked in engine.asked for requested in asked.options} == {ClassifyOptions(1000)}


def test_merged_answer_has_the_form_that_the_task_gives_its_answers(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scores(Classify):
        def result(self, answer: Any) -> dict[str, Any]:
            return {"predictions": [round(row.score, 6) for row in answer], "best": answer[0].label}

    monkeypatch.setitem(tasks.BY_NAME, "classify", Scores())  # type: ignore[index]

    found = ask(client, task="classify", members="first,second")

    assert found["results"] == [{"width": 64, "height": 48, "predictions": [0.6, 0.4], "best": "vest"}]


def test_suppression_keeps_the_best_box(client: FlaskClient) -> None:
    found = ask(client, members="one,two", merge="suppression")

    assert [each["score"] for each in found["results"][0]["detections"]] == [0.9]


def test_options_of_the_task_go_to_every_member(client: FlaskClient, engine: Opinions) -> None:
    ask(client, members="one, two,one", score_threshold=0.1)

    params = [requested for asked in engine.asked for requested in asked.options]
    assert [requested.score_threshold for requested in params if isinstance(requested, DetectOptions)] == [0.1, 0.1]


def test_several_images_are_answered_in_order(client: FlaskClient) -> None:
    data = {"image": [(io.BytesIO(picture(width, 48)), "a.jpg") for width in (64, 32)], "members": "one"}

    found = client.post("/v1/ensemble", data=data).get_json()

    assert [each["width"] for each in found["results"]] == [64, 32]


def test_version_may_be_named(client: FlaskClient) -> None:
    assert ask(client, members="one@1")["members"][0]["model"]["version"] == "1"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"members": "nobody"}, "option_invalid"),
        ({"members": "one@9"}, "option_invalid"),
        ({"members": "first"}, "option_invalid"),
        ({"members": "http://evil.example"}, "option_invalid"),
        ({"members": "169.254.169.254"}, "option_invalid"),
        ({"task": "guess"}, "option_invalid"),
        ({"merge": "vote"}, "option_invalid"),
        ({"merge_iou": "2"}, "option_invalid"),
        ({"member_timeout": "0"}, "option_invalid"),
        ({"member_timeout": "nan"}, "option_invalid"),
        ({"model": "one"}, "option_invalid"),
        ({"top_k": "1"}, "option_invalid"),
    ],
)
def test_wrong_wish_is_refused_and_nobody_is_asked(
    client: FlaskClient, engine: Opinions, options: dict[str, str], code: str
) -> None:
    assert ask(client, 422, **options)["code"] == code
    assert engine.asked == []


def test_request_of_an_ensemble_is_not_passed_on(client: FlaskClient, engine: Opinions) -> None:
    assert ask(client, 508, {"X-Ensemble-Hop": "1"})["code"] == "ensemble_loop"
    assert engine.asked == []


def test_nobody_answered(client: FlaskClient, engine: Opinions) -> None:
    engine.error = EngineAwayError("gone", retry_after_seconds=2)

    found = ask(client, 503)

    assert found["code"] == "ensemble_unavailable"
    assert "None of 3 members answered" in found["detail"]
    assert ask(client, 502, members="gone")["code"] == "ensemble_failed"


def test_image_that_nobody_can_read_is_the_callers(client: FlaskClient) -> None:
    response = client.post("/v1/ensemble?members=one,two", data=b"no image", content_type="image/jpeg")

    assert (response.status_code, response.get_json()["code"]) == (415, "image_unsupported")


def test_request_without_an_image_is_refused(client: FlaskClient) -> None:
    assert client.post("/v1/ensemble?members=gone", data={"members": "gone"}).status_code in (400, 415)
