"""A scenario file from an OpenAPI description of strangers: what it sends fits, and it can be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from loadtest import new_scenario, scenarios
from loadtest.openapi_values import BASE64, RAW, Endless, Values
from loadtest.statuses import UsageError
from loadtest.turns import Request

NODE = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "next": {"$ref": "#/d/Node"}},
}
PARTS: dict[str, Any] = {
    "Node": NODE,
    "Tree": {"type": "object", "required": ["leaves"], "properties": {"leaves": {"items": {"$ref": "#/d/Tree"}}}},
    "Itself": {"type": "object", "required": ["me"], "properties": {"me": {"$ref": "#/d/Itself"}}},
    "AllOfItself": {"allOf": [{"$ref": "#/d/AllOfItself"}, {"type": "object"}]},
    "OneOfItself": {"oneOf": [{"$ref": "#/d/OneOfItself"}]},
    "Cat": {
        "type": "object",
        "required": ["kind", "lives"],
        "properties": {"lives": {"type": "integer", "minimum": 9}},
    },
    "Named": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 3}}},
}


def value_of(schema: Any) -> Any:
    return Values({"d": PARTS}).of(schema, "body")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 3},
        {"type": "integer", "exclusiveMinimum": 3, "maximum": 4},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "integer", "multipleOf": 7, "minimum": 3},
        {"type": "integer", "maximum": -5},
        {"type": ["string", "null"], "minLength": 9, "maxLength": 9},
        {"type": "string", "format": "date-time"},
        {"type": "string", "enum": ["b", "a"]},
        {"const": 4},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 3},
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]},
        {"$ref": "#/d/Node"},
        {"$ref": "#/d/Tree"},
        {"allOf": [{"$ref": "#/d/Named"}, {"required": ["age"], "properties": {"age": {"type": "integer"}}}]},
        {"oneOf": [{"type": "null"}, {"$ref": "#/d/Named"}]},
        {"anyOf": [{"$ref": "#/d/Itself"}, {"type": "string"}]},
        {"required": ["a"], "properties": {"a": {"allOf": [{"$ref": "#/d/Named"}], "description": "x"}}},
        {"type": "object", "additionalProperties": {"type": "string"}},
        True,
        {},
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)
def test_a_value_fits_its_schema(schema: Any) -> None:
    root = {"d": PARTS, **schema} if isinstance(schema, dict) else schema

    jsonschema.Draft202012Validator(root).validate(value_of(schema))


def test_bounds_of_3_0_exclude_by_a_flag() -> None:
    assert value_of({"type": "integer", "minimum": 3, "exclusiveMinimum": True}) > 3


@pytest.mark.parametrize("name", ["Itself", "AllOfItself", "OneOfItself"])
def test_what_requires_itself_has_no_value(name: str) -> None:
    with pytest.raises(Endless):
        value_of({"$ref": f"#/d/{name}"})


def test_the_kind_of_one_of_several_is_named() -> None:
    schema = {
        "oneOf": [{"$ref": "#/d/Cat"}],
        "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/d/Cat"}},
    }

    assert value_of(schema) == {"kind": "cat", "lives": 9}


def test_what_is_shown_comes_before_what_is_made_and_what_only_the_server_says_is_left_out() -> None:
    schema = {
        "required": ["id", "a", "b"],
        "properties": {
            "id": {"type": "integer", "readOnly": True},
            "a": {"type": "string", "examples": ["x"]},
            "b": {"type": "string", "default": "y"},
            "c": {"type": "string", "example": "z"},
            "d": {"type": "string"},
        },
    }

    assert value_of(schema) == {"a": "x", "b": "y", "c": "z"}


@pytest.mark.parametrize("reference", ["other.yaml#/a", "https://example.com/a", "#/d/None", "#/d/Loop"])
def test_a_reference_that_leads_out_or_nowhere_says_so(reference: str) -> None:
    with pytest.raises(UsageError, match="The reference"):
        Values({"d": {"Loop": {"$ref": "#/d/Loop"}}}).of({"$ref": reference}, "body")


# ── Whole files ──────────────────────────────────────────────────────────────────────────────────────────────────────

STRANGE = """
openapi: 3.0.3
info: {title: "Pets \\"R\\" us\\n and more", version: 1}
servers: [{url: "https://{where}.example/api/{v}", variables: {where: {default: eu}, v: {default: v3}}}]
security: [{key: []}]
components:
  securitySchemes: {key: {type: apiKey, in: header, name: X-Key}, token: {type: http, scheme: bearer}}
  parameters: {Page: {name: page, in: query, required: true, schema: {type: integer, minimum: 2}}}
  schemas:
    Pet:
      type: object
      required: [name, born]
      properties: {name: {type: string}, born: {type: string, format: date, example: 2020-01-02}, father: {$ref: "#/components/schemas/Pet"}}
paths:
  /pets/{pet id}:
    parameters: [{name: pet id, in: path, required: true, schema: {type: string}, example: "a b/c"}]
    get: {responses: {200: {description: ok, content: {application/json: {schema: {$ref: "#/components/schemas/Pet"}}}}, 404: {description: none}}}
    delete: {responses: {204: {description: gone}}}
  /pets:
    get:
      operationId: listPets
      parameters: [{$ref: "#/components/parameters/Page"}, {name: s, in: cookie, required: true, schema: {enum: [x]}}]
      responses: {200: {description: ok, content: {application/json: {schema: {type: array}}}}}
    post:
      operationId: list pets!
      security: [{token: []}]
      requestBody: {content: {application/vnd.pet+json: {schema: {$ref: "#/components/schemas/Pet"}}}}
      responses: {201: {description: made}}
  /photos:
    post:
      requestBody:
        content:
          multipart/form-data:
            schema: {type: object, required: [file, note], properties: {file: {type: string, format: binary}, note: {type: string, example: hi}}}
      responses: {default: {description: any}}
    put:
      requestBody: {content: {application/x-www-form-urlencoded: {schema: {required: [a], properties: {a: {type: boolean, example: true}}}}}}
      responses: {200: {description: ok}}
  /endless: {post: {requestBody: {content: {application/json: {schema: {$ref: "#/paths/~1endless/post/requestBody"}}}}, responses: {}}}
  /raw: {post: {requestBody: {content: {application/octet-stream: {schema: {type: string, format: binary}}}}, responses: {200: {description: ok}}}}
"""  # noqa: E501


def requests_of(text: str, folder: Path) -> dict[str, Request]:
    """Scenario → its first request, of a file with this text."""
    path = folder / "pets.py"
    path.write_text(text)
    found = scenarios.from_file(path)
    caller = scenarios.Caller(found, [1.0] * len(found), {}, token="t")  # noqa: S106 - made up
    turns = [caller.turn(index) for index in range(len(found))]
    assert [turn.error for turn in turns if turn.error] == []
    return {turn.scenario.name: turn.first for turn in turns if turn.first}


def test_a_strangers_description_becomes_a_file_that_can_be_loaded(tmp_path: Path) -> None:
    place = tmp_path / "pets.yaml"
    place.write_text(STRANGE)

    written = new_scenario.write(new_scenario.read(str(place), None))
    made = requests_of(written.text, tmp_path)

    assert [(each.method, each.path) for each in made.values()] == [
        ("GET", "/api/v3/pets/a%20b%2Fc"),
        ("GET", "/api/v3/pets?page=2"),
        ("POST", "/api/v3/pets"),
        ("POST", "/api/v3/photos"),
        ("PUT", "/api/v3/photos"),
        ("POST", "/api/v3/endless"),
        ("POST", "/api/v3/raw"),
    ]
    listed, posted = made["pets_list_pets"], made["pets_list_pets_2"]
    assert (listed.headers["Cookie"], listed.headers["X-Key"]) == ("s=x", "t")
    assert (posted.headers["Authorization"], posted.headers["Content-Type"]) == ("Bearer t", "application/vnd.pet+json")
    assert json.loads(posted.body) == {"name": "text", "born": "2020-01-02"}
    assert b'name="file"; filename="picture.jpg"' in made["pets_post_photos"].body
    assert b'name="note"\r\n\r\nhi\r\n' in made["pets_post_photos"].body
    assert made["pets_put_photos"].body == b"a=true"
    assert made["pets_post_raw"].body[:2] == b"\xff\xd8"
    assert 404 in made["pets_get_pets_pet_id"].status


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"swagger": "2.0", "paths": {}}', "version '2.0'; expected a description of OpenAPI 3.0 or 3.1"),
        ("[]", "version None"),
        ("a: [", "neither JSON nor YAML"),
        ('{"openapi": "3.1.0", "paths": {}}', "no operation"),
        ('{"openapi": "3.1.0", "webhooks": {}}', "expected a description"),
    ],
)
def test_what_is_no_description_is_refused(tmp_path: Path, text: str, words: str) -> None:
    place = tmp_path / "api"
    place.write_text(text)

    with pytest.raises(UsageError, match=words):
        new_scenario.write(new_scenario.read(str(place), None))


def test_bytes_are_a_picture_as_they_are_or_in_base64() -> None:
    assert value_of({"type": "string", "format": "binary"}) is RAW
    assert value_of({"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}) is BASE64
