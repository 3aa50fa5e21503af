"""The hint for an unknown option lists what this very address takes; a collection shows its token everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.web.openapi import document, postman
from tests import fakes
from tests.fakes import FakeEngine


@pytest.mark.parametrize(
    ("path", "has", "lacks"),
    [
        ("/v1/detect", {"model", "label", "max_results"}, {"task", "members"}),
        ("/v1/ensemble", {"task", "members", "merge", "max_results"}, {"model", "version", "webhook_url"}),
        ("/v1/ensemble?task=classify", {"task", "members", "top_k"}, {"model", "explain"}),
        ("/v1/jobs", {"task", "webhook_url", "model", "max_results"}, {"members"}),
        ("/v1/jobs?task=classify", {"task", "webhook_url", "top_k"}, {"explain", "explain_label"}),
    ],
)
def test_hint_lists_what_the_address_takes(
    tmp_path: Path, engine: FakeEngine, path: str, has: set[str], lacks: set[str]
) -> None:
    address = f"{path}{'&' if '?' in path else '?'}qqqq=1"

    response = (
        fakes.make_app(tmp_path, engine, jobs="on")
        .test_client()
        .post(address, data=fakes.picture(), content_type="image/jpeg")
    )

    listed = set(response.json["hint"].removeprefix("Known options: ").rstrip(".").split(", "))
    assert response.status_code == 422
    assert has <= listed and not lacks & listed


def test_collection_shows_the_token_and_the_real_address(tmp_path: Path, engine: FakeEngine) -> None:
    app = fakes.make_app(tmp_path, engine, authentication="required")

    found = postman.collection(document.build(app), "https://cask.example:8443")

    assert found["auth"]["bearer"][0]["value"] == "{{token}}"
    assert {each["key"]: each["value"] for each in found["variable"]} == {
        "base_url": "https://cask.example:8443",
        "token": "",
    }


def test_collection_signs_in_with_a_form_of_the_token(tmp_path: Path, engine: FakeEngine) -> None:
    app = fakes.make_app(tmp_path, engine, authentication="required")

    found = postman.collection(document.build(app))

    items = [item for folder in found["item"] for item in folder["item"]]
    body = next(
        item["request"]["body"]
        for item in items
        if item["request"]["method"] == "POST" and item["request"]["url"]["path"] == ["sign-in"]
    )
    assert body["mode"] == "urlencoded"
    assert {each["key"]: each["value"] for each in body["urlencoded"] if not each["disabled"]} == {"token": "{{token}}"}
