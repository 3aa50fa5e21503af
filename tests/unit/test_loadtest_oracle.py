"""Our scenarios: right, wrong, mixed up; bytes that differ while the pixels stay the same; by weight and seed."""

from __future__ import annotations

import base64
import copy
import io
import itertools
import json
import math
import random
import zlib
from typing import Any

import pytest
from PIL import Image

from loadtest import answer_distance, ours, pictures
from loadtest.oracle import Oracle
from loadtest.outcomes import Outcome
from loadtest.scenarios import Caller
from loadtest.turns import Request

SAMPLES = pictures.samples()
DIGEST = "sha256:1"
CONE = {"width": 4, "height": 4, "predictions": [{"label": "cone", "score": 0.9}, {"label": "vest", "score": 0.1}]}
VEST = {"width": 4, "height": 4, "predictions": [{"label": "vest", "score": 0.8}, {"label": "cone", "score": 0.2}]}
BOX = {"x_min": 1.0, "y_min": 2.0, "x_max": 30.0, "y_max": 40.0}
SITE = {
    "width": 4,
    "height": 4,
    "detections": [{"label": "cone", "score": 0.9, "box": BOX}, {"label": "vest", "score": 0.8, "box": BOX}],
}


@pytest.fixture
def oracle() -> Oracle:
    return Oracle({"classify": {0: CONE, 1: VEST}, "detect": {2: SITE}}, {"classify": DIGEST, "detect": DIGEST})


def body(*results: dict[str, Any], request_id: str = "load-1", digest: str = DIGEST) -> bytes:
    model = {"name": "demo", "version": "1", "digest": digest}
    return json.dumps({"model": model, "results": results, "request_id": request_id}, separators=(",", ":")).encode()


def test_the_golden_answer_is_right_the_first_time_and_when_it_is_known(oracle: Oracle) -> None:
    for _ in range(2):
        assert oracle.judge("classify", (0,), "load-1", body(CONE)) == (Outcome.RIGHT, "")


def test_a_score_within_the_tolerance_is_right_and_beyond_it_wrong(oracle: Oracle) -> None:
    near, far = copy.deepcopy(CONE), copy.deepcopy(CONE)
    near["predictions"][0]["score"] = 0.89
    far["predictions"][0]["score"] = 0.7

    assert oracle.judge("classify", (0,), "load-1", body(near))[0] == Outcome.RIGHT
    assert oracle.judge("classify", (0,), "load-1", body(far))[0] == Outcome.WRONG


def test_the_answer_to_another_picture_is_mixed_up(oracle: Oracle) -> None:
    outcome, words = oracle.judge("classify", (0,), "load-1", body(VEST))

    assert outcome == Outcome.MIXED_UP
    assert "picture 1" in words


def test_the_answer_to_another_request_is_mixed_up_though_the_picture_is_the_same(oracle: Oracle) -> None:
    oracle.judge("classify", (0,), "load-1", body(CONE))

    assert oracle.judge("classify", (0,), "load-1", body(CONE, request_id="load-10"))[0] == Outcome.MIXED_UP


def test_another_model_is_wrong(oracle: Oracle) -> None:
    assert oracle.judge("classify", (0,), "load-1", body(CONE, digest="sha256:2"))[0] == Outcome.WRONG


def test_images_answered_in_another_order_are_mixed_up(oracle: Oracle) -> None:
    assert oracle.judge("classify", (0, 1), "load-1", body(CONE, VEST))[0] == Outcome.RIGHT
    assert oracle.judge("classify", (0, 1), "load-1", body(VEST, CONE))[0] == Outcome.MIXED_UP


def test_a_missing_result_is_wrong(oracle: Oracle) -> None:
    assert oracle.judge("classify", (0, 1), "load-1", body(CONE))[0] == Outcome.WRONG


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"{}", b'{"results": 3, "request_id": "load-1", "model": {}}'])
def test_what_is_no_answer_has_failed(oracle: Oracle, garbage: bytes) -> None:
    assert oracle.judge("classify", (0,), "load-1", garbage)[0] == Outcome.FAILED


def inferred(*outputs: tuple[str, list[int], list[Any]], request_id: str = "load-1") -> bytes:
    rows = [{"name": name, "datatype": "", "shape": shape, "data": data} for name, shape, data in outputs]
    return json.dumps({"id": request_id, "parameters": {"digest": DIGEST}, "outputs": rows}).encode()


CONE_TENSORS = (("labels", [1, 2], ["cone", "vest"]), ("scores", [1, 2], [0.9, 0.1]), ("sizes", [1, 2], [4, 4]))


def test_tensors_of_the_inference_protocol_are_compared_too(oracle: Oracle) -> None:
    right = inferred(*CONE_TENSORS)

    for _ in range(2):
        assert oracle.judge("classify", (0,), "load-1", right, "infer") == (Outcome.RIGHT, "")
    assert oracle.judge("classify", (1,), "load-1", right, "infer")[0] == Outcome.MIXED_UP
    assert oracle.judge("classify", (0,), "load-2", right, "infer")[0] == Outcome.MIXED_UP
    assert oracle.judge("classify", (0,), "load-1", b'{"outputs": []}', "infer")[0] == Outcome.FAILED


def test_detections_come_out_of_their_tensors_cut_to_their_count(oracle: Oracle) -> None:
    box = list(BOX.values())
    tensors = (
        ("labels", [1, 3], ["cone", "vest", ""]),
        ("scores", [1, 3], [0.9, 0.8, 0.0]),
        ("boxes", [1, 3, 4], [*box, *box, 0, 0, 0, 0]),
        ("counts", [1], [2]),
        ("sizes", [1, 2], [4, 4]),
    )

    assert oracle.judge("detect", (2,), "load-1", inferred(*tensors), "infer") == (Outcome.RIGHT, "")


def job(*results: dict[str, Any], job_id: str = "j1") -> bytes:
    rows = [{"number": n, "name": "x", "model": {"digest": DIGEST}, **each} for n, each in enumerate(results, 1)]
    return json.dumps({"id": job_id, "state": "succeeded", "results": rows}).encode()


def test_results_of_a_job_are_compared_by_number(oracle: Oracle) -> None:
    failed = {"error": {"code": "image_undecodable"}}

    assert oracle.judge("classify", (0, 1), "j1", job(CONE, VEST), "job") == (Outcome.RIGHT, "")
    assert oracle.judge("classify", (0, 1), "j1", job(VEST, CONE), "job")[0] == Outcome.MIXED_UP
    assert oracle.judge("classify", (0, 1), "j1", job(CONE, VEST, job_id="j2"), "job")[0] == Outcome.MIXED_UP
    assert oracle.judge("classify", (0, 1), "j1", job(CONE, failed), "job")[0] == Outcome.WRONG
    assert oracle.judge("classify", (0,), "j1", job(), "job")[0] == Outcome.FAILED


def test_detections_may_come_in_another_order_but_not_go_astray(oracle: Oracle) -> None:
    turned, moved, fewer = (copy.deepcopy(SITE) for _ in range(3))
    turned["detections"].reverse()
    moved["detections"][0]["box"]["x_min"] = 20.0
    fewer["detections"].pop()

    assert oracle.judge("detect", (2,), "load-1", body(turned))[0] == Outcome.RIGHT
    assert oracle.judge("detect", (2,), "load-1", body(moved))[0] == Outcome.WRONG
    assert oracle.judge("detect", (2,), "load-1", body(fewer))[0] == Outcome.WRONG


# ── Wrong or mixed up ────────────────────────────────────────────────────────────────────────────────────────────────

LABELS = ("barrier", "cone", "helmet", "sign", "vest")


def answer_of(rng: random.Random) -> dict[str, Any]:
    """A classifier's answer: mostly sure of one label, sometimes not."""
    weights = [rng.expovariate(1) ** 3 for _ in LABELS]
    scores = [round(weight / sum(weights), 5) for weight in weights]
    rows = [{"label": label, "score": score} for label, score in zip(LABELS, scores, strict=True)]
    return {"width": 64, "height": 64, "predictions": rows}


@pytest.fixture
def many() -> Oracle:
    """Thirty pictures, many of them alike, of which those are sent that can be told apart."""
    rng = random.Random(7)  # noqa: S311 - chance, not a secret
    golden = {number: answer_of(rng) for number in range(30)}
    chosen = answer_distance.distinct(golden)
    assert 4 <= len(chosen) < 30
    return Oracle({"classify": {number: golden[number] for number in chosen}}, {"classify": DIGEST})


def test_pictures_that_are_sent_are_well_apart_in_every_pair(many: Oracle) -> None:
    for one, other in itertools.combinations(many.golden["classify"].values(), 2):
        assert answer_distance.distance(one, other) >= answer_distance.SEPARATION


def test_twenty_planted_score_errors_are_wrong_and_none_is_mixed_up(many: Oracle) -> None:
    numbers = list(many.golden["classify"])
    many.sent("classify", tuple(numbers))
    for turn in range(20):
        picture = numbers[turn % len(numbers)]
        off = copy.deepcopy(many.golden["classify"][picture])
        off["predictions"][turn % 5]["score"] += (0.03, -0.03, 0.1, 0.5)[turn % 4]
        assert many.judge("classify", (picture,), "load-1", body(off))[0] == Outcome.WRONG, turn


def test_twenty_planted_swaps_are_mixed_up(many: Oracle) -> None:
    pairs = list(itertools.permutations(many.golden["classify"], 2))
    for turn in range(20):
        own, other = pairs[turn * len(pairs) // 20]
        many.sent("classify", (own, other))
        answer = body(many.golden["classify"][other])
        assert many.judge("classify", (own,), "load-1", answer)[0] == Outcome.MIXED_UP, turn


def test_the_answer_to_a_picture_that_nobody_sent_is_wrong_and_not_mixed_up(oracle: Oracle) -> None:
    oracle.sent("classify", (0,))

    assert oracle.judge("classify", (0,), "load-1", body(VEST))[0] == Outcome.WRONG
    oracle.sent("classify", (1,))
    assert oracle.judge("classify", (0,), "load-1", body(VEST))[0] == Outcome.MIXED_UP


def test_an_error_that_makes_an_answer_look_like_anothers_nearby_is_wrong() -> None:
    near = copy.deepcopy(CONE)
    near["predictions"][0]["score"] = 0.85
    oracle = Oracle({"classify": {0: CONE, 1: near}}, {"classify": DIGEST})

    assert oracle.judge("classify", (0,), "load-1", body(near))[0] == Outcome.WRONG


def test_distance_is_counted_in_tolerances() -> None:
    moved, fewer = copy.deepcopy(SITE), copy.deepcopy(SITE)
    moved["detections"][1]["box"]["x_min"] += 8
    fewer["detections"].pop()

    assert answer_distance.distance(SITE, moved) == pytest.approx(2)
    assert answer_distance.distance(CONE, VEST) == pytest.approx(35)
    assert answer_distance.distance(SITE, fewer) == answer_distance.distance(CONE, SITE) == math.inf
    assert answer_distance.distance({}, CONE) == math.inf


# ── Pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize("picture", SAMPLES, ids=lambda picture: picture.name)
def test_a_number_changes_the_bytes_and_no_pixel(picture: pictures.Picture) -> None:
    first, second = picture.with_nonce(1), picture.with_nonce(2)

    assert len({picture.data, first, second}) == 3
    assert pixels(first) == pixels(second) == pixels(picture.data)


@pytest.mark.parametrize("picture", SAMPLES, ids=lambda picture: picture.name)
def test_base64_with_a_number_decodes_to_the_same_pixels(picture: pictures.Picture) -> None:
    assert base64.b64decode(picture.base64_with_nonce(None), validate=True) == picture.data
    assert pixels(base64.b64decode(picture.base64_with_nonce(7), validate=True)) == pixels(picture.data)


# ── Our scenarios ────────────────────────────────────────────────────────────────────────────────────────────────────

TASKS = ("classify", "detect", "segment")


def told_of(task: str) -> dict[str, Any]:
    """What the setup of a task would have found at rest."""
    golden = {str(number): CONE for number in pictures.meant_for(task, SAMPLES)}
    return {"golden": golden, "digest": DIGEST, "model": f"{task}-model", "surprises": []}


def caller(*names: str, **options: Any) -> Caller:
    found = [each for name in names if (each := ours.named(name, TASKS))]
    known = {**{task: told_of(task) for task in TASKS}, **options.pop("known", {})}
    weights = options.pop("weights", [1.0] * len(found))
    return Caller(found, weights, {**known, "page": {"/": 0, "/static/site.css": 1}}, **options)


def first(made: Caller) -> Request:
    """The first request of the next turn."""
    request = made.next().first
    assert request
    return request


def test_only_usable_pictures_are_sent() -> None:
    known = {"classify": {**told_of("classify"), "golden": {"4": CONE}}}
    made = caller("classify_several", known=known)

    assert {picture for _ in range(20) for picture in made.next().expect} == {4}


def test_scenarios_come_by_their_weights() -> None:
    made = caller("classify_raw", "detect_raw", weights=[3, 1], seed=1)

    assert [made.next().index for _ in range(2000)].count(0) / 2000 == pytest.approx(0.75, abs=0.04)


def test_the_same_seed_makes_the_same_requests() -> None:
    one, again = (caller("classify_raw", "detect_multipart", seed=5, first_nonce=7) for _ in range(2))

    assert [first(one) for _ in range(20)] == [first(again) for _ in range(20)]


def test_the_same_seed_sends_the_same_pictures_in_new_bytes() -> None:
    names = ("classify_raw", "detect_json", "classify_infer")
    one, again = ([made.next() for _ in range(20)] for made in (caller(*names, seed=5), caller(*names, seed=5)))

    assert [each.expect for each in one] == [each.expect for each in again]
    assert not {each.first.body for each in one if each.first} & {each.first.body for each in again if each.first}
    assert not {each.id for each in one} & {each.id for each in again}


def test_no_two_bodies_are_the_same_unless_repeats_are_asked_for() -> None:
    unique, repeated = caller("classify_raw", seed=1), caller("classify_raw", seed=1, repeat_share=1.0)

    assert len({first(unique).body for _ in range(200)}) == 200
    assert len({first(repeated).body for _ in range(200)}) <= len(SAMPLES)


def test_the_share_of_repeats_is_the_one_asked_for() -> None:
    made = caller("classify_raw", seed=1, repeat_share=0.3)

    assert sum(not first(made).is_new for _ in range(2000)) / 2000 == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("damaged", [b"", b"other"])
def test_the_page_is_fetched_with_its_assets(damaged: bytes) -> None:
    asked: list[str] = []

    def exchange(request: Request) -> tuple[int, dict[str, str], bytes]:
        asked.append(request.path)
        return 200, {}, damaged

    turn = caller("page").next()
    turn.known["/static/site.css"] = zlib.crc32(b"")

    assert turn.perform(exchange)[0] == (Outcome.WRONG if damaged else Outcome.RIGHT)
    assert asked == ["/", "/static/site.css"]


@pytest.mark.parametrize("name", ours.names(TASKS)[1:])
def test_each_way_to_send_carries_as_many_images_as_it_says(name: str) -> None:
    turn = caller(name).next()

    assert len(turn.expect) == ours.WAYS[name.partition("_")[2]].count
    assert set(turn.expect) <= set(pictures.meant_for(name.partition("_")[0], SAMPLES))


def test_a_task_without_pictures_of_its_own_is_sent_those_of_others() -> None:
    made_for = {task: {SAMPLES[each].task for each in pictures.meant_for(task, SAMPLES)} for task in TASKS}

    assert made_for == {"classify": {"classify"}, "detect": {"detect"}, "segment": {"classify", "detect"}}


def test_masks_are_compared_by_the_areas_of_their_classes() -> None:
    def said(**areas: float) -> dict[str, Any]:
        return {"width": 4, "height": 3, "segments": [{"label": name, "area": area} for name, area in areas.items()]}

    assert answer_distance.alike(said(road=0.9, sky=0.1), said(road=0.91, sky=0.09))
    assert answer_distance.alike(said(road=1.0), said(road=0.99, sky=0.01))
    assert not answer_distance.alike(said(road=0.9, sky=0.1), said(road=0.8, sky=0.2))
    assert not answer_distance.alike({"width": 4, "height": 3, "predictions": []}, said(road=1.0))


def test_answers_of_a_task_that_nobody_named_here_are_compared_by_their_numbers() -> None:
    def said(*vector: float) -> dict[str, Any]:
        return {"width": 4, "height": 3, "embedding": list(vector)}

    assert answer_distance.alike(said(0.5, -0.2), said(0.51, -0.2))
    assert not answer_distance.alike(said(0.5, -0.2), said(0.5, 0.2))
    assert not answer_distance.alike(said(0.5), said(0.5, 0.2))
    assert not answer_distance.alike({"width": 4, "height": 3, "text": "a"}, said(0.5))


def test_the_inference_protocol_carries_the_image_behind_the_json() -> None:
    turn = caller("classify_infer", seed=2).next()
    request = turn.first
    assert request

    head_length = int(request.headers["Inference-Header-Content-Length"])
    head, data = json.loads(request.body[:head_length]), request.body[head_length:]
    assert request.path == "/v2/models/classify-model/infer"
    assert (head["id"], head["inputs"][0]["parameters"]) == (turn.id, {"binary_data_size": len(data)})
    assert int.from_bytes(data[:4], "little") == len(data) - 4
    assert pixels(data[4:]) == pixels(SAMPLES[turn.expect[0]].data)


@pytest.mark.parametrize("name", ["classify_raw", "page"])
def test_every_request_shows_the_token_if_there_is_one(name: str) -> None:
    assert first(caller(name, token="cask_1_2")).headers["X-Api-Token"] == "cask_1_2"  # noqa: S106 - made up
    assert "X-Api-Token" not in first(caller(name)).headers
