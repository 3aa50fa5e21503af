"""What a plugin does to the app and the process of all: refused and undone, or of its own addresses alone."""

# ruff: noqa: E501 - the tables say what is done and the words for it, a row each

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from flask import Flask
from PIL import ImageFile

from tests.fakes import picture
from tests.unit.plugins.test_mounting import make, refusal, write

HEAD = (
    "from flask import Blueprint, Response\nfrom cask import public\nblueprint = Blueprint('claims', __name__)\n"
    "@blueprint.get('/claims')\n@public\ndef page(): return 'x'\n"
)
INIT = "def init_app(app):\n    "
# What is written from line 7 on → what of it is told.
REFUSED = {
    "a key of the sessions": (f"{INIT}app.secret_key = 'mine'\n", "line 8: it changes app.config['SECRET_KEY'] to another value"),
    "a limit of bodies": (f"{INIT}app.config['MAX_CONTENT_LENGTH'] = 9\n", "line 8: it changes app.config['MAX_CONTENT_LENGTH'] to 9"),
    "a cookie": (f"{INIT}del app.config['SESSION_COOKIE_NAME']\n", "line 8: it changes app.config['SESSION_COOKIE_NAME'],"),
    "JSON": (f"{INIT}app.json.sort_keys = not app.json.sort_keys\n", "it changes app.json.sort_keys to"),
    "another JSON": ("from flask.json.provider import DefaultJSONProvider as J\ndef init_app(app): app.json = J(app)\n", "line 8: it changes app.json to"),
    "sessions": ("from flask.sessions import SecureCookieSessionInterface as S\ndef init_app(app): app.session_interface = S()\n", "in a signed cookie: use flask.session"),
    "a converter": (f"{INIT}app.url_map.converters['default'] = int\n", "app.url_map.converters['default'] to <class 'int'>"),
    "slashes": (f"{INIT}app.url_map.strict_slashes = False\n", "it changes app.url_map.strict_slashes to False"),
    "a name for all templates": (f"{INIT}app.jinja_env.globals['url_for'] = str\n", "app.jinja_env.globals['url_for']"),
    "what templates escape": (f"{INIT}app.jinja_env.autoescape = False\n", "it changes app.jinja_env.autoescape to False"),
    "where templates are": (f"{INIT}app.jinja_loader = None\n", "it changes app.jinja_loader to None"),
    "what stands before the app": (f"{INIT}app.wsgi_app = str\n", "it changes app.wsgi_app to <class 'str'>"),
    "requests": (f"{INIT}app.request_class = str\n", "it changes app.request_class to <class 'str'>"),
    "an extension of ours": (f"{INIT}app.extensions['babel'] = None\n", "import gettext from flask_babel; words are in translations/."),
    "a signal for all": ("from flask import request_started\ndef hear(*a, **k): 1 / 0\nrequest_started.connect(hear)\n", "line 7: it changes who hears flask.request_started"),
    "a hook of ours": (f"{INIT}app.before_request_funcs.setdefault('api', []).append(print)\n", "it changes before_request_funcs of api"),
    "no hook of ours": (f"{INIT}app.after_request_funcs[None].clear()\n", "it changes after_request_funcs of the app"),
    "a limit of Pillow": ("from PIL import ImageFile\nImageFile.LOAD_TRUNCATED_IMAGES = True\n", "line 8: it changes PIL.ImageFile.LOAD_TRUNCATED_IMAGES to True"),
    "a function of ours": ("import app.web.policy\napp.web.policy.of = None\n", "line 8: it changes app.web.policy.of to None"),
    "a method of Flask": ("from flask import Flask\nFlask.make_response = None\n", "line 8: it changes flask.app.Flask.make_response to None"),
    "a module of Python": ("import json, sys\nsys.modules['json'] = sys\n", "line 8: it changes sys.modules['json'] to <module 'sys'"),
    "where modules are looked for": ("import sys\nsys.path.insert(0, '/theirs')\n", "line 8: it changes sys.path to '/theirs'"),
    "the folder": ("import os\nos.chdir('/')\n", "line 8: it changes os.chdir to '/'"),
    "the environment": ("import os\nos.environ['PATH'] = '/nowhere'\n", "line 8: it changes os.environ['PATH'] to '/nowhere'"),
    "modes of files": ("import os\nos.umask(0)\n", "line 8: it changes os.umask to 0"),
    "how long sockets wait": ("import socket\nsocket.setdefaulttimeout(0.1)\n", "line 8: it changes socket.setdefaulttimeout to 0.1"),
    "what is logged": ("import logging\nlogging.disable(50)\n", "line 8: it changes logging.disable to 50"),
}  # fmt: skip
# What would be met by every caller, were it not the plugin's own: code → status of its own page.
OWN = {
    "a hook before that fails": (f"{INIT}app.before_request(lambda: 1 / 0)\n", 500),
    "a hook behind that fails": (f"{INIT}app.after_request(lambda response: 1 / 0)\n", 500),
    "a hook that answers": ("@blueprint.before_app_request\ndef ask(): return 'no', 403\n", 403),
    "a teardown that fails": ("@blueprint.teardown_app_request\ndef end(error): 1 / 0\n", 200),
    "a teardown of the context that fails": (f"{INIT}app.teardown_appcontext(lambda error: 1 / 0)\n", 200),
    "words for pages that fail": ("@blueprint.app_context_processor\ndef words(): 1 / 0\n", 200),
    "parts of addresses that fail": ("@blueprint.app_url_value_preprocessor\ndef parts(name, values): 1 / 0\n", 500),
    "a handler of everything": ("@blueprint.app_errorhandler(Exception)\ndef told(error): return 'told', 418\n@blueprint.before_request\ndef fail(): 1 / 0\n", 418),
    "a handler of what is not there": ("from flask import abort\n@blueprint.app_errorhandler(404)\ndef told(error): return 'told', 418\n@blueprint.before_request\ndef fail(): abort(404)\n", 418),
    "a method of the app": (f"{INIT}ours = app.handle_user_exception\n    app.handle_user_exception = lambda error: ('told', 418)\n@blueprint.before_request\ndef fail(): 1 / 0\n", 418),
}  # fmt: skip


def are_ours_untouched(app: Flask) -> bool:
    """Whether our own addresses answer as without any plugin: predictions, pages, failures."""
    client = app.test_client()
    predicted = client.post("/v1/classify", data=picture(), content_type="image/jpeg")
    missing, page = client.get("/v1/nowhere"), client.get("/models")
    assert (predicted.status_code, missing.status_code, page.status_code) == (200, 404, 200)
    return bool((missing.json or {})["code"] == "not_found" and b"<nav" in page.data)


@pytest.mark.parametrize("kind", REFUSED)
def test_change_of_what_all_share_is_refused_and_undone(tmp_path: Path, kind: str) -> None:
    code, words = REFUSED[kind]
    process = (Path.cwd(), os.environ["PATH"], sys.path[0], Flask.make_response, ImageFile.LOAD_TRUNCATED_IMAGES)

    app = make(tmp_path, write(tmp_path / "theirs", HEAD + code), plugins_on_error="skip")

    (plugin,) = app.extensions["plugins"]
    assert words in plugin.reason
    assert are_ours_untouched(app)
    assert app.test_client().get("/claims").status_code == 404
    assert process == (
        *(Path.cwd(), os.environ["PATH"], sys.path[0], Flask.make_response, ImageFile.LOAD_TRUNCATED_IMAGES),
    )


@pytest.mark.parametrize("kind", OWN)
def test_hook_for_all_addresses_is_of_its_own_alone(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, status = OWN[kind]
    app = make(tmp_path, write(tmp_path / "theirs", HEAD + code))

    assert app.test_client().get("/claims").status_code == status
    assert ("plugin claims: " in capfd.readouterr().err) == ("teardown" in kind)
    assert are_ours_untouched(app)


def test_hooks_of_plugins_keep_no_image_from_the_fast_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "@blueprint.before_app_request\ndef ask(): return 'no', 403\n"
    app = make(tmp_path, write(tmp_path / "theirs", HEAD + code))
    monkeypatch.setattr(app, "full_dispatch_request", None)

    assert app.test_client().post("/v1/classify", data=picture(), content_type="image/jpeg").status_code == 200


def test_what_is_new_has_a_name_that_nobody_had(tmp_path: Path) -> None:
    code = (
        f"{INIT}app.config['CLAIMS_ROWS'] = 1\n    app.extensions['claims'] = 1\n    app.jinja_env.globals['rows'] = 1\n"
        "    app.jinja_env.filters['rows'] = str\n    app.claims = 1\n    app.logger.info('x')\n"
    )
    app = make(tmp_path, write(tmp_path / "theirs", HEAD + code))

    assert [each.reason for each in app.extensions["plugins"]] == [""]


def test_two_plugins_with_one_extension_are_refused(tmp_path: Path) -> None:
    code = f"{INIT}app.config['DATABASE_URI'] = __name__\n"
    plugins = write(tmp_path / "theirs", HEAD + code)
    write(plugins, (HEAD + code).replace("claims", "later"), name="later")

    assert "plugin later: " in refusal(tmp_path, plugins)
    assert "line 8: it changes app.config['DATABASE_URI'] to another value" in refusal(tmp_path, plugins)


def test_two_views_at_one_address_are_refused_with_both_lines(tmp_path: Path) -> None:
    """Flask asks the first, silently. Parts are told apart by their converter, not by their name."""
    for path, other in (("/claims", "/claims"), ("/claims/<a>", "/claims/<b>"), ("/c/<int:a>/", "/c/<int:b>/")):
        parts = "a" * ("<" in path), "b" * ("<" in path)
        code = (
            f"{HEAD}@blueprint.get('{path}x')\ndef one({parts[0]}): return 'x'\n"
            f"@blueprint.route('{other}x', methods=['GET', 'POST'])\ndef two({parts[1]}): return 'y'\n"
        )
        said = refusal(tmp_path, write(tmp_path / "theirs", code))
        assert f"line 9: GET {other}x (claims.two) is answered by claims.one already, " in said
        assert "__init__.py, line 7; expected another address." in said


def test_views_that_no_request_confuses_are_served(tmp_path: Path) -> None:
    code = (
        f"{HEAD}@blueprint.post('/claims')\ndef add(): return 'added'\n"
        "@blueprint.get('/claims/<name>')\n@public\ndef one(name): return 'name'\n"
        "@blueprint.get('/claims/<int:number>')\n@public\ndef two(number): return 'number'\n"
        "@blueprint.get('/claims/all/', defaults={'page': 1})\n@blueprint.get('/claims/all/<int:page>')\n@public\n"
        "def every(page): return str(page)\n"
    )
    client = make(tmp_path, write(tmp_path / "theirs", code)).test_client()

    assert [client.get(f"/claims/{path}").text for path in ("x", "7", "all/", "all/2")] == ["name", "number", "1", "2"]


def test_module_that_only_a_view_imports_is_read_at_the_start(tmp_path: Path) -> None:
    code = HEAD + "@blueprint.get('/claims/late')\ndef late():\n    from . import late\n    return late.words\n"
    plugins = write(tmp_path / "theirs", code)
    (plugins / "claims" / "late.py").write_text("words = 1\ndef (:\n")
    # What no start imports: tests, and what belongs to no package.
    for name in ("tests", "notes"):
        (plugins / "claims" / name).mkdir()
        (plugins / "claims" / name / "old.py").write_text("print 'python 2'\n")

    assert "claims/late.py, line 2: SyntaxError: invalid syntax" in refusal(tmp_path, plugins)


def test_websocket_is_refused_and_a_stream_is_served(tmp_path: Path) -> None:
    code = "@blueprint.route('/claims/live', websocket=True)\ndef live(): return 'x'\n"
    assert "line 7: /claims/live wants a WebSocket, which WSGI does not carry" in refusal(
        tmp_path, write(tmp_path / "theirs", HEAD + code)
    )

    code = "@blueprint.get('/claims/live')\n@public\ndef live(): return Response((f'data: {n}\\n\\n' for n in range(3)), mimetype='text/event-stream')\n"
    answer = make(tmp_path, write(tmp_path / "theirs", HEAD + code)).test_client().get("/claims/live")
    assert answer.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_library_that_registers_the_routes_has_templates_and_files_too(tmp_path: Path) -> None:
    """Flask-Admin and its kin are given the app, and no blueprint is in the plugin's package."""
    code = (
        "from flask import Blueprint, render_template, url_for\nfrom cask import public\n@public\n"
        "def page(): return render_template('claims/page.html')\n"
        "def init_app(app):\n    theirs = Blueprint('claims', 'flask')\n"
        "    theirs.add_url_rule('/claims', view_func=page)\n    app.register_blueprint(theirs)\n"
    )
    plugins = write(tmp_path / "theirs", code)
    (plugins / "claims" / "templates" / "claims").mkdir(parents=True)
    (plugins / "claims" / "templates" / "claims" / "page.html").write_text(
        "{{ url_for('claims_files.static', filename='a b.css') }}"
    )
    (plugins / "claims" / "static").mkdir()
    (plugins / "claims" / "static" / "a b.css").write_text("p {}")
    client = make(tmp_path, plugins).test_client()

    assert client.get("/claims").text == "/static/plugins/claims/a%20b.css"
    with client.get("/static/plugins/claims/a%20b.css") as file:
        assert file.text == "p {}"
