"""Background jobs for models with code: taken in every form, worked off item by item, through kills and faults."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import zipfile
from typing import Any

import pytest

from tests import bad_input, servers
from tests.code_examples import FACTS
from tests.servers import Answer, Server

JSON = "application/json"
END_SECONDS = 60.0


def leave(server: Server, document: Any, kind: str = JSON, query: str = "", **headers: str) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return server.ask(f"/v1/jobs{query}", body, {"Content-Type": kind, **headers})


def wait_for_end(server: Server, left: Answer) -> dict[str, Any]:
    assert left.status == 202, left.body
    where = left.headers["Location"]
    servers.wait_until(lambda: server.ask(where).json["state"] in ("succeeded", "failed"), END_SECONDS, "the job's end")
    found: dict[str, Any] = server.ask(where).json
    return found


def part(name: str) -> dict[str, Any]:
    return {**FACTS, "part": {**FACTS["part"], "name": name}}


def photo() -> bytes:
    return (servers.ROOT / "models" / "samples" / "cone.jpg").read_bytes()


def test_items_are_answered_in_their_order_with_the_jobs_options(coded: Server) -> None:
    texts = ["My parcel is late", "refund refund", " "]

    job = wait_for_end(coded, leave(coded, {"model": "tickets", "items": [{"text": each} for each in texts], "top": 2}))

    assert (job["task"], job["options"]) == ("code", {"model": "tickets", "version": "1", "top": 2})
    assert job["progress"] == {"done": 3, "failed": 1, "total": 3}
    answers = [row.get("answer", row.get("error", {}).get("code")) for row in job["results"]]
    assert [len(answers[0]), answers[0][0]["label"], answers[1][0]["label"], answers[2]] == [
        *(2, "shipping", "returns"),
        "input_refused",
    ]
    assert job["results"][0]["model"]["name"] == "tickets"
    lines = coded.ask(f"{job['url']}/results").body.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2, 3]
    page = coded.ask(f"/jobs/{job['id']}")
    assert page.status == 200
    assert b"shipping" in page.body
    assert coded.ask(f"/get_result?job_id={job['id']}").status == 422


def test_one_item_lines_and_every_kind_of_value_are_taken(coded: Server) -> None:
    lines = b"\n".join(json.dumps({"text": each}).encode() for each in ("refund", "parcel")) + b"\n"

    one = wait_for_end(coded, leave(coded, {"model": "tickets", "text": "refund"}))
    many = wait_for_end(coded, leave(coded, lines, "application/x-ndjson", "?model=tickets&top=3"))
    kinds = wait_for_end(coded, leave(coded, {"model": "kinds", "items": [part("bolt")], "is_loud": True}))

    assert [row["answer"][0]["label"] for row in one["results"]] == ["returns"]
    assert [len(row["answer"]) for row in many["results"]] == [3, 3]
    assert kinds["results"][0]["answer"]["name"] == "BOLT"
    assert kinds["results"][0]["answer"]["raw"] == FACTS["file"]


def test_pictures_come_as_a_form_an_archive_bytes_and_base64(coded: Server) -> None:
    image = photo()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.jpg", image)
        file.writestr("b.jpg", b"junk")
    form, kind = bad_input.multipart(image, image, model="brightness", threshold="0.3")
    text = base64.b64encode(image).decode()

    jobs = [
        wait_for_end(coded, left)
        for left in (
            leave(coded, form, kind),
            leave(coded, image, "image/jpeg", "?model=brightness&threshold=0.3"),
            leave(coded, {"model": "brightness", "items": [{"photo": text}], "threshold": 0.3}),
            leave(coded, archive.getvalue(), "application/zip", "?model=brightness&threshold=0.3"),
        )
    ]

    assert [(job["progress"]["total"], job["progress"]["failed"]) for job in jobs] == [(2, 0), (1, 0), (1, 0), (2, 1)]
    areas = [row["answer"]["areas"] for job in jobs for row in job["results"] if "answer" in row]
    assert len(areas) == 5
    assert all(each == areas[0] for each in areas)
    assert jobs[3]["results"][1]["error"]["code"] == "image_unsupported"


@pytest.mark.parametrize(
    ("document", "kind", "query", "code"),
    [
        ({"model": "tickets", "items": [{"text": "a"}], "topp": 1}, JSON, "", "option_invalid"),
        ({"model": "tickets", "items": [{"text": "a"}], "top": 9}, JSON, "", "option_invalid"),
        ({"model": "tickets", "items": []}, JSON, "", "option_invalid"),
        ({"model": "tickets", "items": "a"}, JSON, "", "option_invalid"),
        ({"model": "tickets", "version": "9", "items": [{"text": "a"}]}, JSON, "", "model_not_found"),
        ({"model": "nobody", "items": [{"text": "a"}]}, JSON, "", "model_not_found"),
        ({"model": "kinds", "items": [{"file": "*"}]}, JSON, "", "option_invalid"),
        ({"model": "brightness", "items": [{}]}, JSON, "", "option_invalid"),
        (b"junk", "image/jpeg", "?model=tickets", "option_invalid"),
        (b"{", "application/x-ndjson", "?model=tickets", "bad_request"),
        (b'{"text": "a"}', "application/x-ndjson", "", "media_type_unsupported"),
        ({"model": "tickets", "items": [{"text": "a"}] * 1001}, JSON, "", "too_many_images"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_job_is_refused_when_it_is_left(
    coded: Server, document: Any, kind: str, query: str, code: str
) -> None:
    answer = leave(coded, document, kind, query)

    assert answer.json["code"] == code
    assert 400 <= answer.status < 500


def test_item_that_fails_or_crashes_its_model_costs_itself(coded: Server) -> None:
    names = ("bolt", "fault", "crash", "refused", "nut")
    bad = {**FACTS, "number": 7}

    job = wait_for_end(coded, leave(coded, {"model": "kinds", "items": [*map(part, names), bad]}))

    found = [row.get("answer", {}).get("name", row.get("error", {}).get("code")) for row in job["results"]]
    assert found == ["bolt", "internal_error", "model_crashed", "input_refused", "nut", "option_invalid"]


def test_same_key_is_the_same_job(coded: Server) -> None:
    document = {"model": "tickets", "items": [{"text": "refund"}]}
    key = {"Idempotency-Key": "code-1"}

    first, again = leave(coded, document, **key), leave(coded, document, **key)
    other = leave(coded, {**document, "top": 2}, **key)

    assert first.json["id"] == again.json["id"]
    assert other.json["code"] == "idempotency_key_reused"
    wait_for_end(coded, first)


def test_job_goes_on_after_its_worker_was_killed(coded: Server) -> None:
    left = leave(coded, {"model": "kinds", "items": [part("slow")] * 30})
    where = left.headers["Location"]
    servers.wait_until(lambda: coded.ask(where).json["progress"]["done"] >= 2, END_SECONDS, "its first answers")
    rows = coded.ask("/readyz").json["processes"]
    os.kill(next(row["pid"] for row in rows if row["role"] == "jobs"), signal.SIGKILL)

    job = wait_for_end(coded, left)

    assert job["progress"] == {"done": 30, "failed": 0, "total": 30}
    assert [row["number"] for row in job["results"]] == list(range(1, 31))
