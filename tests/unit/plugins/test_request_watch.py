"""What a view changes of what all share while it answers: told by `make dev` and red in `make plugin-test`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from werkzeug.test import EnvironBuilder

from app.plugins import request_watch
from app.plugins.request_watch import RequestWatch
from app.plugins.snapshot import Snapshot
from tests.unit.plugins.test_mounting import make, write

# A view → the names that the warning lists; the last views change nothing.
VIEWS = {
    "os.chdir('/')": ["os.chdir"],
    "os.environ['HTTP_PROXY'] = 'http://x'": ["os.environ['HTTP_PROXY']"],
    "socket.setdefaulttimeout(3)": ["socket.setdefaulttimeout"],
    "json.load = str": ["json.load"],
    "flask.current_app.config['SECRET_KEY'] = 'x'": ["app.config['SECRET_KEY']"],
    "werkzeug.Request.max_content_length = 5": ["werkzeug.wrappers.request.Request.max_content_length"],
    "flask.current_app.before_request_funcs[None] = [print]": ["app.before_request_funcs"],
    "flask.session['a'] = 1": [],
    "flask.render_template_string('{{ 1 }}')": [],
}


@pytest.mark.parametrize("code", VIEWS)
def test_view_that_changes_what_all_share_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    plugins = write(
        tmp_path / "plugins",
        "import os, socket, json, flask, werkzeug\nfrom cask import public\n"
        "blueprint = flask.Blueprint('claims', __name__)\n@blueprint.get('/claims')\n@public\ndef page():\n"
        f"    {code}\n"
        "    return 'x'\n",
    )
    app = make(tmp_path, plugins)
    before = Snapshot(app)
    shown = request_watch.told(app, ["/claims"])
    shared = RequestWatch(app)
    try:
        for _ in range(2):
            assert b"".join(shown(EnvironBuilder("/claims").get_environ(), lambda *_: None)) == b"x"

        said = capsys.readouterr().err.splitlines()
        assert [line.split(" was changed")[0] for line in said] == [
            f"warn  during GET /claims {name}" for name in VIEWS[code]
        ]
        assert shared.changes() == VIEWS[code]
    finally:
        os.environ.pop("HTTP_PROXY", None)
        before.restore()
