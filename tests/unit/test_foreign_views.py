"""A blueprint of somebody else's, which promises nothing or little: guarded, described, counted and shed like ours."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openapi_spec_validator
import pytest
from flask import Blueprint, Flask, abort, request
from flask.views import MethodView
from werkzeug.routing import BaseConverter, Map

from app.inference.pipeline import predictor
from app.web import policy
from app.web.middleware import request_metrics
from app.web.openapi.operations import describe
from app.web.policy import Access, RoutePolicy
from tests import fakes
from tests.fakes import FakeEngine, picture

LIMITED = 3


@describe(policy=RoutePolicy(access=Access.PUBLIC, is_limited=False, max_body_bytes=10))
def note() -> dict[str, Any]:
    """Take a short note."""
    return {"bytes": len(request.get_data())}


@describe(policy=policy.PREDICTING_ROUTE)
def count_people() -> dict[str, Any]:
    return {"people": 0}


def silent(number: int) -> str:
    return f"<p>{number}"


class Seats(MethodView):
    """What can be done with seats."""

    def get(self, **parts: Any) -> dict[str, Any]:
        """Show a seat."""
        return parts

    def put(self, **parts: Any) -> dict[str, Any]:
        return {"row": request.form["row"]}

    def delete(self, **parts: Any) -> None:
        abort(409, "Seat 7 is taken.")


class Code(BaseConverter):
    regex = "(a|b){2}"

    def __init__(self, url_map: Map, word: str) -> None:
        super().__init__(url_map)


class Deep(BaseConverter):
    part_isolating = False
    regex = ".+"


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """The real app with their blueprint, where tokens and limits are."""
    return make(tmp_path, authentication="required", rate_limit_per_address=(f"{LIMITED}/minute",))


def make(folder: Path, **settings: Any) -> Flask:
    made = fakes.make_app(folder, FakeEngine(), **settings)
    theirs = Blueprint("shop", __name__)
    theirs.add_url_rule("/shop/<int:number>", view_func=silent)
    theirs.add_url_rule("/shop/note", view_func=note, methods=["POST"])
    theirs.add_url_rule("/shop/people", view_func=count_people, methods=["POST"])
    made.register_blueprint(theirs)
    return made


def test_description_holds_what_is_known_of_them(app: Flask) -> None:
    answer = app.test_client().get("/openapi.json")
    document = json.loads(answer.data)

    assert answer.status_code == 200
    openapi_spec_validator.validate(document)
    assert document["tags"][-1] == {"name": "shop"}
    shown = document["paths"]["/shop/{number}"]["get"]
    assert (shown["summary"], shown["parameters"][0]["schema"]["type"]) == ("Silent", "integer")
    assert "security" in shown
    assert {"401", "429"} <= set(shown["responses"])
    noted = document["paths"]["/shop/note"]["post"]
    assert noted["description"] == "Take a short note."
    assert "security" not in noted


def seats(folder: Path, *rules: str) -> Flask:
    """The app with a view that is a class, at these addresses."""
    app = fakes.make_app(folder, FakeEngine())
    app.url_map.converters |= {"code": Code, "deep": Deep}
    theirs, view = Blueprint("shop", __name__), Seats.as_view("seats")
    for rule in rules:
        theirs.add_url_rule(rule, view_func=view)
    app.register_blueprint(theirs)
    return app


@pytest.mark.parametrize(
    ("rule", "address", "schemas"),
    [
        ("/shop/{odd}/<name>", "/shop/%7Bodd%7D/{name}", [{"type": "string", "minLength": 1}]),
        ("/shop/<int(signed=True):n>", "/shop/{n}", [{"type": "integer"}]),
        ("/shop/<float(min=1, max=2):n>", "/shop/{n}", [{"type": "number", "minimum": 1, "maximum": 2}]),
        ("/shop/<any(red, green):n>", "/shop/{n}", [{"type": "string", "enum": ["green", "red"]}]),
        ("/shop/<uuid:n>", "/shop/{n}", [{"type": "string", "format": "uuid"}]),
        ('/shop/<code("(a|b)"):n>/<deep:m>', "/shop/{n}/{m}", [{"type": "string", "minLength": 1}] * 2),
        ("/größe/<n>", "/größe/{n}", [{"type": "string", "minLength": 1}]),
    ],
)
def test_parts_of_an_address_are_described(tmp_path: Path, rule: str, address: str, schemas: list[Any]) -> None:
    document = json.loads(seats(tmp_path, rule).test_client().get("/openapi.json").data)

    openapi_spec_validator.validate(document)
    shown = document["paths"][address]["get"]
    assert [row["schema"] for row in shown["parameters"] if row.get("in") == "path"] == schemas


def test_view_of_several_addresses_has_a_description_of_each(tmp_path: Path) -> None:
    document = json.loads(seats(tmp_path, "/shop/a/<n>", "/shop/b/<n>").test_client().get("/openapi.json").data)

    openapi_spec_validator.validate(document)
    found = [document["paths"][f"/shop/{each}/{{n}}"] for each in "ab"]
    assert [each["get"]["operationId"] for each in found] == ["get_shop_seats_n", "get_shop_seats_n_2"]
    assert found[0]["get"]["description"] == "Show a seat."
    assert found[0]["put"]["description"] == "What can be done with seats."


def test_pattern_of_an_address_heeds_its_converters(tmp_path: Path) -> None:
    app = seats(tmp_path, '/shop/<code("(a|b)"):n>/<deep:m>')
    (rule,) = app.url_map.iter_rules("shop.seats")

    assert re.fullmatch(policy.pattern(rule), "/shop/ab/x/y")
    assert not re.fullmatch(policy.pattern(rule), "/shop/ab")


def test_address_of_other_letters_is_counted_under_its_own_name(tmp_path: Path) -> None:
    routes = request_metrics.Routes(seats(tmp_path, "/größe/<n>").url_map)

    assert routes.of("/größe/m".encode().decode("latin-1"), "GET") == "/größe/{n}"
    assert routes.of("/größe/m", "GET") == request_metrics.NO_ROUTE


@pytest.mark.parametrize(
    "rule", ["/my space/<n>", "/it%22s/<n>", '/it"s/<n>', "/a?b#c/<n>", "/a\u00a0b/<n>", f"/{'x' * 150}/<n>"]
)
def test_address_of_odd_signs_is_answered_counted_and_described(tmp_path: Path, rule: str) -> None:
    """What no label takes would be a failure of each request."""
    app = seats(tmp_path, rule)
    client = app.test_client()

    answer = client.get(f"{quote(rule.removesuffix('<n>'))}7")

    assert (answer.status_code, answer.json) == (200, {"n": "7"})
    assert f"{quote(rule.removesuffix('<n>'))}{{n}}" in client.get("/openapi.json").json["paths"]


def test_what_fails_behind_a_view_is_told_like_what_fails_in_it(tmp_path: Path) -> None:
    app = seats(tmp_path, "/shop/<n>")
    app.after_request_funcs["shop"] = [lambda response: None]  # type: ignore[list-item, return-value]

    answer = app.test_client().get("/shop/7")

    assert (answer.status_code, answer.json["code"]) == (500, "internal_error")
    assert answer.json["hint"] == "Tell the operator of this service the request id."


def test_what_a_view_says_or_misses_reaches_its_caller(tmp_path: Path) -> None:
    client = seats(tmp_path, "/shop/<n>").test_client()

    refused, missing = client.delete("/shop/7"), client.put("/shop/7")

    assert (refused.status_code, refused.json["detail"]) == (409, "Seat 7 is taken.")
    assert (missing.status_code, missing.json["detail"]) == (400, "PUT /shop/7: the request has no field row.")


def test_address_without_a_view_breaks_no_description(tmp_path: Path) -> None:
    app = make(tmp_path)
    app.add_url_rule("/elsewhere", endpoint="elsewhere", build_only=True)

    document = app.test_client().get("/openapi.json")

    assert document.status_code == 200
    assert b"/elsewhere" not in document.data


def test_view_that_says_nothing_wants_a_token_and_is_limited(app: Flask) -> None:
    client = app.test_client()

    answers = [client.get("/shop/1") for _ in range(LIMITED + 1)]

    assert [each.status_code for each in answers] == [401] * LIMITED + [429]
    assert answers[0].headers["Cache-Control"] == "no-store"
    assert client.post("/shop/note", data=b"short").json == {"bytes": 5}


def test_body_over_its_own_limit_is_refused(app: Flask) -> None:
    answer = app.test_client().post("/shop/note", data=b"x" * 11)

    assert answer.status_code == 413
    assert "11 bytes; at most 10 are accepted" in (answer.json or {})["detail"]


def test_route_that_predicts_is_shed(tmp_path: Path) -> None:
    app = make(tmp_path)
    client = app.test_client()
    assert client.post("/shop/people", data=picture()).status_code == 200

    app.extensions["admission"].slots = 0
    refused = client.post("/shop/people", data=picture())

    assert (refused.status_code, (refused.get_json(force=True))["code"]) == (503, "engine_busy")
    assert client.get("/shop/1").status_code == 200


def test_view_that_predicts_without_a_word_is_admitted_when_it_asks(tmp_path: Path) -> None:
    app = make(tmp_path)
    seen: list[int] = []
    controller = app.extensions["admission"]

    def look() -> dict[str, Any]:
        outcome = predictor().predict("detect", [request.get_data()], {})
        seen.append(controller.in_hand)
        return {"images": len(outcome.results)}

    app.add_url_rule("/look", view_func=look, methods=["POST"])
    client = app.test_client()
    assert client.post("/look", data=picture()).json == {"images": 1}
    controller.slots = 0
    refused = client.post("/look", data=picture(40, 30))

    assert (refused.status_code, seen, controller.in_hand) == (503, [1], 0)


def test_requests_are_counted_by_their_address(app: Flask) -> None:
    routes: request_metrics.Routes = app.extensions["routes"]

    assert routes.of("/shop/7", "GET") == "/shop/{number}"


HINTED = """
import functools
from typing import Any, TypedDict
from dataclasses import dataclass
from flask import Blueprint, Response
from flask.views import MethodView
from werkzeug.routing import BaseConverter

class Claim(TypedDict):
    damage: list[str]

@dataclass
class Part:
    name: str

@dataclass
class Row:
    part: Part
    price: float

class Codes(BaseConverter):
    regex = "(a|b)"

class Many(MethodView):
    def get(self): return "all"
    def post(self) -> Row: return {}

blueprint = Blueprint("hinted", __name__)
blueprint.record_once(lambda state: state.app.url_map.converters.update(codes=Codes))

@blueprint.get("/h/claim")
def claim() -> Claim: return {"damage": []}
@blueprint.get("/h/rows")
def rows() -> list[Row]: return []
@blueprint.get("/h/page")
def page() -> str: return ""
@blueprint.get("/h/unknown")
def unknown() -> "NotThere": return ""
@blueprint.get("/h/response")
def response() -> Response: return Response("")
@blueprint.get("/h/pair")
def pair() -> tuple[Claim, int]: return {"damage": []}, 200
@blueprint.get('/h/<codes("x)y"):code>/<any(a, b):kind>')
def coded(code, kind): return code
def plain(number, factor=1): return str(number * factor)
blueprint.add_url_rule("/h/partial/<int:number>", "partial", functools.partial(plain, factor=2))
blueprint.add_url_rule("/h/many", view_func=Many.as_view("many"))
"""


def test_hints_describe_and_nothing_breaks_the_description(tmp_path: Path) -> None:
    folder = tmp_path / "theirs" / "hinted"
    folder.mkdir(parents=True)
    (folder / "plugin.toml").write_text('name = "hinted"\nversion = "1"\ncask = ">=1"\n')
    (folder / "__init__.py").write_text(HINTED)
    client = fakes.make_app(tmp_path, FakeEngine(), plugins_dir=folder.parent).test_client()

    document = json.loads(client.get("/openapi.json").data)

    openapi_spec_validator.validate(document)
    answers = {
        path: row["get"]["responses"]["200"].get("content", {})
        for path, row in document["paths"].items()
        if "/h/" in path
    }
    assert answers["/h/claim"]["application/json"]["schema"]
    assert answers["/h/rows"]["application/json"]["schema"]["items"]["$ref"].endswith("/Row")
    assert answers["/h/page"] == {"text/html": {"schema": {"type": "string"}}}
    assert (answers["/h/unknown"], answers["/h/response"]) == ({}, {})
    assert {"/h/partial/{number}", "/h/many"} <= answers.keys()
    assert client.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("promises", "words"),
    [
        ({"polici": policy.PAGE_ROUTE}, "has 'polici'; expected promises among answer, answers, bodies"),
        ({"policy": "public"}, "has policy = 'public'; expected a RoutePolicy"),
        ({"answers": {"200": "fine"}}, "has answers = {'200': 'fine'}; expected an Answer for each status"),
        ({"errors": (ValueError,)}, "expected a tuple of subclasses of CaskError"),
        ({"bodies": ["image"]}, "expected a tuple of Body"),
        ({"query": dict}, "expected a pydantic model"),
        ({"summary": ""}, ""),
        ({"summary": "", "tag": "Shop"}, "has promises without a summary"),
    ],
)
def test_promise_that_cannot_be_is_refused_with_its_line(promises: dict[str, Any], words: str) -> None:
    def view() -> str:
        return ""

    if not words:
        assert describe(**promises)(view) is view
        return
    with pytest.raises(TypeError) as caught:
        describe(**{"summary": "Show it", **promises})(view)

    assert str(caught.value).startswith(f"{__file__}, line {view.__code__.co_firstlineno}: @describe ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"access": "anybody"}, "access is 'anybody'; expected one of predict, any token, admin"),
        ({"is_limited": "no"}, "is_limited is 'no'; expected True or False"),
        ({"limits": "30 per minute"}, "expected a tuple of texts"),
        ({"limits": ("30 per minute",), "is_limited": False}, "expected one of them"),
        ({"max_body_bytes": -1}, "expected a number of bytes"),
    ],
)
def test_policy_that_contradicts_itself_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        RoutePolicy(**given)


def test_second_policy_of_a_view_is_refused() -> None:
    def view() -> str:
        return ""

    describe(policy=policy.PAGE_ROUTE)(view)

    with pytest.raises(ValueError, match="gives a policy to a view that has another one"):
        describe(policy=policy.FILE_ROUTE)(view)
