"""A team's own Flask code on the real app: what it gets without a word, and what it may not take."""

# ruff: noqa: E501 - the tables say a mistake and its words, a row each

from __future__ import annotations

import io
import json
import sys
import threading
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
from flask import Flask

from app.auth.tokens import TokenStore
from app.errors import PluginError
from app.plugins import loading
from tests import fakes
from tests.fakes import FakeEngine, picture

MANIFEST = 'name = "{name}"\nversion = "1.0"\ncask = ">=1,<2"\n'
CLAIMS = """
from flask import Blueprint, render_template, request
from cask import limit, predict, public, scope

blueprint = Blueprint("claims", __name__)

@blueprint.post("/claims")
@limit("2 per minute")
def claim():
    "Say what is damaged on a photograph."
    return {"damage": predict("classifier", request.files["photo"], top=1)["predictions"]}

@blueprint.get("/claims/help")
@public
def help_page() -> str:
    return "help"

@blueprint.post("/claims/reset")
@scope("admin")
def reset():
    return "gone"
"""
VIEW = """
from flask import Blueprint
blueprint = Blueprint("{name}", __name__)
@blueprint.route("{path}", methods=["GET", "POST"])
def view():
    return "mine"
"""


def write(folder: Path, code: str = CLAIMS, name: str = "claims", manifest: str = "") -> Path:
    """A plugin below ``folder``, and the folder that PLUGINS_DIR names."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "plugin.toml").write_text(MANIFEST.format(name=name) + manifest)
    (folder / name / "__init__.py").write_text(code)
    return folder


def make(tmp_path: Path, folder: Path, **changes: Any) -> Flask:
    return fakes.make_app(tmp_path, FakeEngine(), plugins_dir=folder, **changes)


def refusal(tmp_path: Path, plugins: Path) -> str:
    with pytest.raises(PluginError) as error:
        make(tmp_path, plugins)
    return f"{error.value.message} {error.value.hint}"


def photo() -> dict[str, Any]:
    return {"photo": (io.BytesIO(picture()), "a.jpg")}


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    return write(tmp_path / "theirs")


# ── what a plugin gets ────────────────────────────────────────────────────────────────────────────────────────────────


def test_route_predicts_behind_token_and_its_own_limit(tmp_path: Path, plugins: Path) -> None:
    app = make(tmp_path, plugins, authentication="required")
    client = app.test_client()
    store = TokenStore(tmp_path / "state")
    shown = {"X-Api-Token": store.create("a", ("predict",))[1]}
    other = {"X-Api-Token": store.create("b", ("predict",))[1]}

    assert client.post("/claims", data=photo()).status_code == 401
    answers = [client.post("/claims", data=photo(), headers=shown) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert len((answers[0].json or {})["damage"]) == 1
    assert answers[1].headers["RateLimit-Remaining"] == "0"
    assert int(answers[2].headers["Retry-After"]) >= 1
    # Of another token, and of other routes, nothing is used up.
    assert client.post("/claims", data=photo(), headers=other).status_code == 200
    assert client.get("/claims/help").data == b"help"
    assert (client.post("/claims/reset", headers=shown).get_json(force=True))["code"] == "scope_missing"


def test_route_that_predicts_is_shed_and_one_that_does_not_goes_on(tmp_path: Path, plugins: Path) -> None:
    app = make(tmp_path, plugins)
    app.extensions["admission"].slots = 0

    refused = app.test_client().post("/claims", data=photo())

    assert (refused.status_code, (refused.json or {})["code"]) == (503, "engine_busy")
    assert app.test_client().get("/claims/help").status_code == 200


def test_description_and_policies_hold_its_routes(tmp_path: Path, plugins: Path) -> None:
    client = make(tmp_path, plugins, authentication="required").test_client()
    document = json.loads(client.get("/openapi.json").data)

    openapi_spec_validator.validate(document)
    assert document["paths"]["/claims"]["post"]["description"] == "Say what is damaged on a photograph."
    assert "429" in document["paths"]["/claims"]["post"]["responses"]
    assert "security" not in document["paths"]["/claims/help"]["get"]


def test_page_files_and_place_in_the_navigation(tmp_path: Path) -> None:
    plugins = write(
        tmp_path / "theirs",
        'from flask import Blueprint, render_template\nblueprint = Blueprint("claims", __name__, static_folder="static")\n'
        '@blueprint.get("/claims")\ndef page():\n    return render_template("claims/page.html")\n',
        manifest='navigation = { endpoint = "claims.page", words = "Our claims" }\n'
        '[content_security_policy]\nimg-src = ["https://images.example.org"]\nworker-src = ["\'self\'"]\n',
    )
    for name, text in {
        "templates/claims/page.html": "{% extends 'layout.html' %}{% block main %}"
        "{{ url_for('claims.static', filename='a.css') }}{% endblock %}",
        "static/a.css": "p {}",
    }.items():
        (plugins / "claims" / name).parent.mkdir(parents=True, exist_ok=True)
        (plugins / "claims" / name).write_text(text)
    client = make(tmp_path, plugins).test_client()

    page = client.get("/claims")
    file = client.get("/static/plugins/claims/a.css")

    assert b"/static/plugins/claims/a.css" in page.data
    assert (file.status_code, file.data) == (200, b"p {}")
    file.close()
    assert b"Our claims" in client.get("/models").data
    theirs, ours = (client.get(path).headers["Content-Security-Policy"] for path in ("/claims", "/models"))
    assert "img-src 'self' data: blob: https://images.example.org" in theirs
    assert "worker-src 'self'" in theirs
    assert "example.org" not in ours


def test_its_words_are_told_in_german_and_ours_stay(tmp_path: Path) -> None:
    app = make(tmp_path, Path("examples/plugins").resolve())
    german = {"Accept-Language": "de"}

    assert "Schäden" in app.test_client().get("/claims/page", headers=german).text
    assert "Modelle" in app.test_client().get("/claims/page", headers=german).text


def test_own_modules_are_found_and_no_library_is_hidden(tmp_path: Path) -> None:
    """Airflow's and Superset's plugins share one name space: one called `json` breaks everybody."""
    code = "import json\nfrom . import parts\nassert hasattr(json, 'loads')\nblueprint = parts.blueprint\n"
    plugins = write(tmp_path / "theirs", code, name="json")
    (plugins / "json" / "parts.py").write_text(VIEW.format(name="mine", path="/mine"))

    app = make(tmp_path, plugins)

    assert app.test_client().get("/mine").data == b"mine"
    assert sys.modules["json"] is json


def test_two_plugins_have_modules_of_one_name(tmp_path: Path) -> None:
    """Where all plugins are on sys.path, the second gets the first's (feedBack issue 354)."""
    for name in ("first", "second"):
        write(tmp_path / "theirs", "from .parts import blueprint\n", name=name)
        (tmp_path / "theirs" / name / "parts.py").write_text(VIEW.format(name=name, path=f"/{name}"))

    client = make(tmp_path, tmp_path / "theirs").test_client()

    assert [client.get(path).status_code for path in ("/first", "/second")] == [200, 200]


def test_own_failures_are_handled_by_its_own_handler_and_nobody_elses(tmp_path: Path) -> None:
    code = (
        VIEW.format(name="mine", path="/mine")
        .replace("return 'mine'", "")
        .replace('return "mine"', "raise KeyError(1)")
        + "@blueprint.errorhandler(KeyError)\ndef told(error):\n    return 'told', 418\n"
    )

    client = make(tmp_path, write(tmp_path / "theirs", code)).test_client()

    assert client.get("/mine").status_code == 418
    assert (client.get("/nowhere").json or {})["code"] == "not_found"


def test_init_app_is_called_and_may_add_what_it_needs(tmp_path: Path) -> None:
    code = "def init_app(app):\n    app.extensions['theirs'] = 1\n    app.add_url_rule('/plain', 'plain', lambda: 'plain')\n"

    app = make(tmp_path, write(tmp_path / "theirs", code))

    assert app.extensions["theirs"] == 1
    assert app.test_client().get("/plain").status_code == 200


def test_chosen_plugins_only_are_served(tmp_path: Path) -> None:
    plugins = write(write(tmp_path / "theirs"), VIEW.format(name="shop", path="/shop"), name="shop")

    app = make(tmp_path, plugins, plugins=("shop",))

    assert [each.name for each in app.extensions["plugins"]] == ["shop"]
    assert app.test_client().get("/claims/help").status_code == 404


# ── what is refused, and in which words ───────────────────────────────────────────────────────────────────────────────

BROKEN = {
    "syntax error": ("x = 1\ndef (:\n", "__init__.py, line 2: SyntaxError: invalid syntax"),
    "missing name": ("\n\nnothing()\n", "__init__.py, line 3: NameError: name 'nothing' is not defined"),
    "end of the process": ("import sys\nsys.exit(0)\n", "__init__.py, line 2: SystemExit: 0"),
    "own module without a dot": ("import helpers_of_claims\n", "from . import helpers_of_claims"),
    "no blueprint": ("x = 1\n", "has no blueprint"),
    "limit that is none": ('from cask import limit\nlimit("often")\n', "line 2: ValueError: limit is 'often'; expected"),
    "decorator without its text": ("from cask import limit\n@limit\ndef view(): pass\n", "line 2: ValueError: limit is <fun"),
    "name that cask has not": ("from cask import predicts\n", "line 1: "),
    "our blueprint": (VIEW.format(name="api", path="/mine"), "'api', is one of Cask"),
    "our address": (VIEW.format(name="mine", path="/v1/classify"), "/v1/classify (mine.view) collides with /v1/classify"),
    "hides an address": (VIEW.format(name="mine", path="/v1/models/best"), "collides with /v1/models/<name>"),
    "takes everything": (VIEW.format(name="mine", path="/<path:all>"), "/<path:all> (mine.view) collides with"),
    "Apache's address": (VIEW.format(name="mine", path="/_alive"), "collides with one of Apache's own"),
    "our files": (VIEW.format(name="mine", path="/static/a.js"), "collides with /static/<path:filename>"),
    "our view": ("def init_app(app):\n    app.view_functions['pages.models'] = print\n", "replaces the view"),
    "our first page": (VIEW.format(name="mine", path="/"), "/ (mine.view) collides with /"),
    "name with a dot": (VIEW.format(name="a.b", path="/mine"), "line 3: ValueError: 'name' may not contain a dot"),
    "init_app that fails": ("def init_app(app):\n    1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
}  # fmt: skip
MANIFESTS = {
    "no TOML": ("name = \n", "line 4"),
    "other name": ('\nnome = "x"', "Did you mean 'name'?"),
    "settings without meaning": ('\n[settings.rows]\ntype = "int"', "[settings.rows] has no meaning"),
    "default that is wrong": (
        '\n[settings.rows]\ntype = "int"\nmeaning = "Rows."\ndefault = 9\nat_most = 5',
        "default is 9; expected a whole number of at most 5",
    ),
    "unknown page": ('\nnavigation = { endpoint = "claims.pgae", words = "x" }', "one of claims.claim, claims.help_page"),
    "application without a name": ('\n[wsgi]\napplication = "shop"\nmount = "/shop"', 'expected module:name such as "shop:app"'),
    "application that is not there": ('\n[wsgi]\napplication = "shop:app"\nmount = "/shop"', "but there is no"),
    "mount without a slash": ('\n[wsgi]\napplication = "a:app"\nmount = "shop"', 'expected a path such as "/shop"'),
    "mount over ours": ('\n[wsgi]\napplication = "__init__:app"\nmount = "/v1"', "collides with /v1/"),
    "no environment": ('\n[wsgi]\napplication = "__init__:app"\nmount = "/a"\nenvironment = "venv"', "with bin/python"),
    "too many threads": ('\n[wsgi]\napplication = "__init__:app"\nmount = "/a"\nthreads = 0', "threads is 0; expected a whole"),
    "policy with a semicolon": ('\n[content_security_policy]\nimg-src = ["a; script-src *"]', "a list of sources"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_code_ends_the_start_with_place_and_reason(tmp_path: Path, kind: str) -> None:
    code, words = BROKEN[kind]

    said = refusal(tmp_path, write(tmp_path / "theirs", code))

    assert words in said
    assert "claims" in said


@pytest.mark.parametrize("kind", MANIFESTS)
def test_wrong_manifest_ends_the_start_with_what_is_right(tmp_path: Path, kind: str) -> None:
    text, words = MANIFESTS[kind]

    assert words in refusal(tmp_path, write(tmp_path / "theirs", manifest=text))


def test_plugin_for_another_interface_and_under_another_name_is_refused(tmp_path: Path) -> None:
    plugins = write(tmp_path / "theirs")
    path = plugins / "claims" / "plugin.toml"
    path.write_text(path.read_text().replace(">=1,<2", ">=2"))
    assert "written for cask >=2, and this is 1" in refusal(tmp_path, plugins)

    path.write_text(MANIFEST.format(name="claim"))
    assert "name is 'claim' in the folder 'claims'" in refusal(tmp_path, plugins)


def test_templates_of_one_name_are_refused(tmp_path: Path) -> None:
    """Flask takes the first it finds, and shows the page of another (flask issue 1361 and its kin)."""
    plugins = write(write(tmp_path / "theirs"), VIEW.format(name="shop", path="/shop"), name="shop")
    for name in ("claims", "shop"):
        (plugins / name / "templates").mkdir()
        (plugins / name / "templates" / "index.html").write_text(name)
    assert "put it into templates/shop/" in refusal(tmp_path, plugins)

    (plugins / "shop" / "templates" / "index.html").rename(plugins / "shop" / "templates" / "layout.html")
    assert "app/templates/layout.html" in refusal(tmp_path, plugins)


def test_two_plugins_with_one_address_are_refused(tmp_path: Path) -> None:
    plugins = write(write(tmp_path / "theirs"), VIEW.format(name="shop", path="/claims"), name="shop")

    assert "/claims (shop.view) collides with /claims (claims.claim)" in refusal(tmp_path, plugins)


def test_address_below_an_application_of_another_plugin_is_refused(tmp_path: Path) -> None:
    plugins = write(tmp_path / "theirs", VIEW.format(name="shop", path="/mount/x"), name="shop")
    write(plugins, "", name="a", manifest='[wsgi]\napplication = "__init__:app"\nmount = "/mount"\n')
    assert "/mount/x (shop.view) lies below /mount" in refusal(tmp_path, plugins)

    write(plugins, "", name="b", manifest='[wsgi]\napplication = "__init__:app"\nmount = "/mount/b"\n')
    assert "mount /mount/b collides with /mount of another plugin" in refusal(tmp_path, plugins)


@pytest.mark.parametrize("kind", ["syntax error", "end of the process", "our address", "init_app that fails"])
def test_broken_plugin_is_left_out_whole_where_it_may_be(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plugins = write(write(tmp_path / "theirs"), BROKEN[kind][0], name="zzz")

    client = make(tmp_path, plugins, plugins_on_error="skip").test_client()

    assert "The service runs without it" in capfd.readouterr().err
    assert [client.get(path).status_code for path in ("/claims/help", "/mine", "/v1/models", "/openapi.json")] == [
        *(200, 404, 200, 200)
    ]
    rows = {row["name"]: row for row in client.get("/status").json["plugins"]}  # type: ignore[index]
    assert (rows["claims"]["state"], rows["zzz"]["state"]) == ("serving", "left out")
    assert rows["zzz"]["reason"]
    assert 'cask_plugin_up{plugin="zzz"} 0.0' in client.get("/metrics").text


def test_half_a_plugin_leaves_no_hook(tmp_path: Path) -> None:
    code = "def init_app(app):\n    app.before_request(lambda: 'caught')\n    app.add_url_rule('/half', 'half', str)\n    1 / 0\n"

    client = make(tmp_path, write(tmp_path / "theirs", code), plugins_on_error="skip").test_client()

    assert client.get("/v1/models").json
    assert client.get("/half").status_code == 404


def test_import_that_takes_long_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, gate = list[str](), threading.Event()

    def hear(words: str, *values: object) -> None:
        said.append(words % values)
        gate.set()

    monkeypatch.setattr(loading, "LONG_SECONDS", 0.01)
    monkeypatch.setattr(loading.log, "warning", hear)
    monkeypatch.setattr(threading, "its_gate", gate, raising=False)
    code = f"import threading\nassert threading.its_gate.wait({fakes.PATIENCE_SECONDS})\n{CLAIMS}"
    folder = write(tmp_path / "theirs", code)

    make(tmp_path, folder)

    assert said == [f"plugin claims: {folder}/claims/__init__.py, line 2: its import takes long"]


def test_missing_plugin_that_is_named_ends_the_start(tmp_path: Path, plugins: Path) -> None:
    with pytest.raises(PluginError, match=r"PLUGINS names 'claim', but there is no .*; there: claims. Did you mean"):
        make(tmp_path, plugins, plugins=("claim",))


def test_what_it_prints_is_not_taken_for_our_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, write(tmp_path / "theirs", "print('hello')\n" + CLAIMS))

    assert capfd.readouterr() == ("", "hello\n")
