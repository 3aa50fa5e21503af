"""The OpenAPI document: every address is in it, it is valid, and its examples are what the service gives and takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openapi_spec_validator
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import tasks
from app.web import policy
from app.web.openapi import code_paths, document, postman
from app.web.openapi.operations import JSON
from tests import bad_input, fakes
from tests.fakes import FakeEngine, picture

VALUES = {"name": "classifier", "version": "1"}
# Not in every answer of those that name them.
SOMETIMES = {"X-Cache", "Age"}
STATUSES_OF_GOOD_REQUESTS = (200, 202, 204, 303)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """One app for all tests; none of these requests changes it."""
    with fakes.logging_kept():
        yield make_app(tmp_path_factory.mktemp("app"))


def make_app(folder: Path) -> Flask:
    """An app with a model for every task."""
    for task in tasks.NAMES:
        fakes.write_model(folder / "models", VALUES["name"] if task == "classify" else f"for-{task}", task=task)
    return fakes.make_app(folder, FakeEngine())


@pytest.fixture(scope="module")
def specification(app: Flask) -> dict[str, Any]:
    """The document as callers read it."""
    found: dict[str, Any] = json.loads(app.test_client().get("/openapi.json").data)
    return found


def operations(specification: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, each) for path, row in specification["paths"].items() for method, each in row.items()]


def check(specification: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """The value fits the schema, whose references lead into the document. Raises ValidationError."""
    jsonschema.Draft202012Validator({**schema, "components": specification["components"]}).validate(value)


def filled(path: str, client: FlaskClient) -> str:
    """The address of something that there is; a new job each time, for the one before may be removed by now."""
    if "job" not in path and path != "/get_result":
        return path.format(**VALUES)
    job = client.post("/v1/jobs", data=picture(), content_type="image/jpeg").json
    assert job is not None
    return path.format(**VALUES, job_id=job["id"]) + (f"?job_id={job['id']}" if path == "/get_result" else "")


def sample_body(path: str, media_type: str) -> tuple[bytes, str]:
    """A body for forms whose examples are files."""
    if media_type == "multipart/form-data":
        return bad_input.multipart(picture(), field_name="image_upload" if path == "/upload" else "image")
    if media_type == "application/x-www-form-urlencoded":
        return b"token=cask_none", media_type
    return picture(), media_type.replace("*", "jpeg")


def test_document_is_valid(specification: dict[str, Any]) -> None:
    assert specification["openapi"].startswith("3.1")
    openapi_spec_validator.validate(specification)


def test_every_address_is_in_the_document_and_nothing_else(app: Flask, specification: dict[str, Any]) -> None:
    rules = {
        (method, policy.template(rule.rule))
        for rule, here in policy.routes(app)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if here != policy.FILE_ROUTE
    }
    # Each model with code has an address of its own there, and none is served here.
    rules -= {("POST", code_paths.GENERAL), ("GET", code_paths.PAGE), ("POST", code_paths.PAGE)}

    assert {(method.upper(), path) for method, path, _ in operations(specification)} == rules


def test_names_of_operations_are_used_once(specification: dict[str, Any]) -> None:
    names = [each["operationId"] for _, _, each in operations(specification)]

    assert len(set(names)) == len(names)


def test_every_example_fits_its_schema(specification: dict[str, Any]) -> None:
    seen = 0
    for _, _, operation in operations(specification):
        for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
            for content in holder.get("content", {}).values():
                single = [content["example"]] if "example" in content else []
                for value in (*single, *(each["value"] for each in content.get("examples", {}).values())):
                    check(specification, content["schema"], value)
                    seen += 1

    assert seen > 100


def test_every_documented_failure_has_the_status_it_stands_below(specification: dict[str, Any]) -> None:
    for _, path, operation in operations(specification):
        for status, response in operation["responses"].items():
            problems = response.get("content", {}).get(document.PROBLEM_MEDIA_TYPE, {"examples": {}})
            for example in problems["examples"].values():
                assert str(example["value"]["status"]) == status, path


def test_every_address_answers_as_its_document_says(client: FlaskClient, specification: dict[str, Any]) -> None:
    for method, path, operation in operations(specification):
        if path == "/samples/{name}":
            continue  # tests/unit/test_pages.py has a store with samples
        for media_type, content in operation.get("requestBody", {"content": {"": {}}})["content"].items():
            for data, content_type in _requests(path, media_type, content):
                where = filled(path, client)
                response = client.open(where, method=method.upper(), data=data, content_type=content_type)

                promised = operation["responses"][str(response.status_code)]
                assert response.status_code in STATUSES_OF_GOOD_REQUESTS, (path, response.data)
                if response.mimetype == JSON:
                    check(specification, promised["content"][JSON]["schema"], response.json)
                for name in set(promised.get("headers", {})) - SOMETIMES:
                    assert name in response.headers, (path, name)


def _requests(path: str, media_type: str, content: dict[str, Any]) -> list[tuple[Any, str | None]]:
    if not media_type:
        return [(None, None)]
    if examples := content.get("examples"):
        return [(json.dumps(each["value"]), media_type) for each in examples.values()]
    return [sample_body(path, media_type)]


def test_every_view_of_ours_says_what_it_promises(app: Flask) -> None:
    silent = [rule.rule for _, rule, each in document.addresses(app) if each.tag not in document.TAGS]

    assert silent == []


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_readers_have_everything_from_this_server(client: FlaskClient, path: str) -> None:
    page = client.get(path).get_data(as_text=True)

    for address in re.findall(r'(?:src|href|data-document)="([^#"][^"]*)"', page):
        assert address.startswith("/")
        with client.get(address) as response:
            assert response.status_code == 200, address


def test_asset_that_is_none_of_ours_is_not_served(client: FlaskClient) -> None:
    assert client.get("/docs/assets/swagger-ui.css.map").status_code == 404
    assert client.get("/docs/assets/..%2f__init__.py").status_code == 404


def test_collection_has_every_address_and_its_examples_are_answered(
    client: FlaskClient, specification: dict[str, Any]
) -> None:
    collection = postman.collection(specification)
    requests = [each["request"] for folder in collection["item"] for each in folder["item"]]

    assert {(each["method"], each["url"]["raw"].removeprefix("{{base_url}}")) for each in requests} == {
        (method.upper(), _example_path(path, each)) for method, path, each in operations(specification)
    }
    for request in requests:
        path = request["url"]["raw"].removeprefix("{{base_url}}")
        if request.get("body", {}).get("mode") == "raw":
            response = client.open(path, method=request["method"], data=request["body"]["raw"], content_type=JSON)
            assert response.status_code in (200, 202), (path, response.data)


def _example_path(path: str, operation: dict[str, Any]) -> str:
    return path.format(
        **{row["name"]: row.get("example", "") for row in operation["parameters"] if row.get("in") == "path"}
    )


@pytest.mark.parametrize("task", tasks.NAMES)
def test_description_is_valid_where_a_task_has_no_model(tmp_path: Path, task: str) -> None:
    fakes.write_model(tmp_path / "models", "only", task=task)
    with fakes.logging_kept():
        found = fakes.make_app(tmp_path, FakeEngine()).test_client().get("/openapi.json").json

    def enums(part: Any) -> Iterator[list[Any]]:
        if isinstance(part, dict):
            if isinstance(part.get("enum"), list):
                yield part["enum"]
            part = list(part.values())
        if isinstance(part, list):
            for each in part:
                yield from enums(each)

    assert all(enums(found))


def test_every_process_has_the_same_document(app: Flask, tmp_path_factory: pytest.TempPathFactory) -> None:
    with fakes.logging_kept():
        other = make_app(tmp_path_factory.mktemp("other"))
    etags = {each.test_client().get("/openapi.json").headers["ETag"] for each in (app, other)}

    assert len(etags) == 1
