"""What a newcomer gets wrong in a plugin: each message names the file, the line, what stands there and what to write."""

# ruff: noqa: E501 - the tables say a mistake and its words, a row each

from __future__ import annotations

from pathlib import Path

import pytest

import cask
from tests.unit.plugins.test_mounting import make, refusal, write

HEAD = (
    "from flask import Blueprint, render_template\n"
    "from cask import count, limit, predict, public, scope, settings\n"
    "blueprint = Blueprint('claims', __name__)\n"
)
VIEW = "@blueprint.get('/claims/a')\n@public\ndef view():\n"
# Lines behind HEAD → where, and what to write.
REFUSED = {
    "an application instead": ("app = __import__('flask').Flask(__name__)\nblueprint = None\n", "__init__.py makes an application, app = Flask(…); expected blueprint = Blueprint(\"claims\", __name__)"),
    "no route": ("", "its blueprint 'claims' has no route; expected some, such as @blueprint.get(\"/claims\")"),
    "its own module without a dot": ("import views_of_it\n", "line 4: ModuleNotFoundError: No module named 'views_of_it' A module of its own is imported by a dot: from . import views_of_it"),
    "its own module that is missing": ("from . import helpers\n", "claims/helpers.py"),
    "the same, by its path": ("from .helpers import x\n", "claims/helpers.py"),
    "a module of another plugin": ("from ..shop import x\n", "line 4: ModuleNotFoundError: No module named 'cask_plugins.shop' A module of another plugin is out of reach"),
    "a library that is not there": ("import stripe_payments\n", "A library must be installed"),
    "an address among ours": ("@blueprint.get('/v1/claims')\ndef view(): return 'x'\n", "address /v1/claims (claims.view) lies among those of Cask, whose next release may have it; expected one such as /claims"),
    "@public()": ("@public()\ndef view(): return 'x'\n", "line 4: TypeError: public() missing 1 required positional argument: 'view' Write @public, without parentheses."),
    "@scope of nobody": ("@scope('user')\ndef view(): return 'x'\n", "line 4: ValueError: scope is 'user'; expected one of predict, admin, any"),
    "public and a scope": ("@public\n@scope('admin')\ndef view(): return 'x'\n", "line 4: ValueError: @public stands above a view that is for admin already; expected one of both"),
    "limit without a span": ("@limit('30')\ndef view(): return 'x'\n", "line 4: ValueError: limit is '30'; expected a text such as \"30 per minute\""),
    "setting that is not declared": ("rows = settings.rows\n", "line 4: AttributeError: settings.rows: plugin.toml declares no [settings.rows]"),
    "address without a slash": ("@blueprint.get('claims')\ndef view(): return 'x'\n", "line 4: ValueError: URL rule 'claims' must start with a slash"),
    "two views of one name": (f"{VIEW}    return 'x'\n@blueprint.get('/claims/b')\ndef view(): return 'y'\n", "line 8: AssertionError: View function mapping is overwriting an existing endpoint function: claims.view Two views have this name"),
    "part that the view does not take": ("@blueprint.get('/claims/<int:number>')\ndef view(): return 'x'\n", "line 4: view does not take what /claims/<int:number> hands over (got an unexpected keyword argument 'number'); expected def view(number)"),
    "converter that is not there": ("@blueprint.get('/claims/<number:x>')\ndef view(x): return 'x'\n", "line 4: LookupError: the converter 'number' does not exist"),
    "methods that are no list": ("@blueprint.route('/claims', methods='POST')\ndef view(): return 'x'\n", "line 4: TypeError: Allowed methods must be a list"),
    "a host of its own": ("@blueprint.get('/claims', subdomain='api')\ndef view(): return 'x'\n", "line 4: /claims answers to the host 'api' alone, at which Cask does not look; expected no host and no subdomain"),
    "async def": ("@blueprint.get('/claims')\nasync def view(): return 'x'\n", "line 4: async def view; expected def"),
    "a request while importing": ("x = predict('classifier', b'')\n", "line 4: RuntimeError: predict() was called outside of a request"),
    "a method that nobody can send": ("@blueprint.route('/claims', methods=['POST '])\ndef view(): return 'x'\n", "line 4: /claims takes the method 'POST '; expected one such as POST"),
    "init_app without the app": (f"{VIEW}    return 'x'\ndef init_app(): pass\n", "Write def init_app(app)"),
    "no indentation": ("def view():\nreturn 'x'\n", "line 5: IndentationError: expected an indented block"),
    "the end of the process": ("import os\nos._exit(0)\n", "line 5: SystemExit: os._exit(0)"),
    "the same by another name": ("from os import _exit as leave\nleave(3)\n", "line 5: SystemExit: os._exit(3)"),
    "event that is a sentence": ("count('It failed')\n", "line 4: ValueError: count: event is 'It failed'; expected a word"),
}  # fmt: skip
# Seen when somebody asks: told in the log.
ASKED = {
    "no return": (f"{VIEW}    x = 1\n", "__init__.py, line 4: view() returned None; expected a text, a dict, a list or a response: end it with return."),
    "a number": (f"{VIEW}    return 5\n", "view() returned 5; expected"),
    "a template that is not there": (f"{VIEW}    return render_template('claims/pgae.html')\n", "templates/claims/pgae.html; expected it there. Did you mean 'claims/page.html'?"),
    "a number that JSON does not know": (f"{VIEW}    return {{'x': float('nan')}}\n", "Out of range float values are not JSON compliant"),
    "what is no JSON": (f"{VIEW}    return {{'x': object()}}\n", "Object of type object is not JSON serializable"),
    "a header of two lines": (f"{VIEW}    return 'x', 200, {{'X-A': 'b\\nc'}}\n", "Header values must not contain newline characters"),
    "an end": (f"{VIEW}    import sys\n    sys.exit(3)\n", "__init__.py, line 4: view() called sys.exit(3); expected an answer, or abort(503)"),
    "a setting that is not declared": (f"{VIEW}    return settings.rows\n", "plugin.toml declares no [settings.rows]"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_mistake_stops_the_start_in_words_that_help(tmp_path: Path, kind: str) -> None:
    code, words = REFUSED[kind]

    said = refusal(tmp_path, write(tmp_path / "theirs", HEAD + code))

    assert words in said
    assert "plugin claims: " in said


@pytest.mark.parametrize("kind", ASKED)
def test_mistake_that_only_a_request_shows_is_told_in_the_log(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, words = ASKED[kind]
    plugins = write(tmp_path / "theirs", HEAD + code)
    (plugins / "claims" / "templates" / "claims").mkdir(parents=True)
    (plugins / "claims" / "templates" / "claims" / "page.html").write_text("")

    answer = make(tmp_path, plugins).test_client().get("/claims/a")

    assert answer.status_code == 500
    assert words not in answer.text
    assert words in capfd.readouterr().err


def test_blueprint_in_a_module_of_its_own_is_named(tmp_path: Path) -> None:
    plugins = write(tmp_path / "theirs", "from . import views\n")
    (plugins / "claims" / "views.py").write_text(f"{HEAD}{VIEW}    return 'x'\n")

    assert f"blueprint of {plugins}/claims/views.py; expected from .views import blueprint" in refusal(
        tmp_path, plugins
    )


def test_settings_of_one_name_are_refused_with_both_plugins(tmp_path: Path) -> None:
    for name, key in (("a", "b_c"), ("a_b", "c")):
        table = f'[settings.{key}]\ntype = "text"\nmeaning = "Something."\n'
        write(tmp_path / "theirs", f"{HEAD}{VIEW}    return 'x'\n".replace("claims", name), name, table)

    said = refusal(tmp_path, tmp_path / "theirs")

    assert "plugin a_b: [settings.c] is PLUGIN_A_B_C, as is [settings.b_c] of plugin a; expected another name" in said


def test_plugin_counts_what_it_means_by_a_bounded_number_of_words(tmp_path: Path) -> None:
    code = f"{HEAD}{VIEW}    [count(f'word_{{n}}') for n in range(60)]\n    count('word_1', 2)\n    return 'x'\n"
    client = make(tmp_path, write(tmp_path / "theirs", code)).test_client()

    assert client.get("/claims/a").status_code == 200

    found = client.get("/metrics").text
    assert 'cask_plugin_events_total{event="word_1",plugin="claims"} 3.0' in found
    assert 'cask_plugin_events_total{event="other",plugin="claims"} 10.0' in found
    assert "word_50" not in found
    with pytest.raises(ValueError, match="which is no plugin"):
        cask.count("unreadable")


def test_limits_of_a_route_stand_beside_it(tmp_path: Path) -> None:
    from app.cli import routes

    app = make(tmp_path, write(tmp_path / "theirs"))

    row = next(row for row in routes._rows(app) if row["path"] == "/claims")

    assert "2/minute" in row["rules"]
