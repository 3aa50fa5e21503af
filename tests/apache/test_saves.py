"""`make serve` in dev: a save of a plugin or of a whole application is answered; a broken one costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

PATIENCE_SECONDS = 60.0
MANIFEST = 'name = "{name}"\nversion = "1"\ncask = ">=1"\n'
PLUGIN = (
    "from flask import Blueprint\nfrom cask import public\nblueprint = Blueprint('words', __name__)\n"
    "@blueprint.get('/words/')\n@public\ndef word():\n    return '{word}'\n"
)
APPLICATION = (
    "from flask import Flask, render_template\napp = Flask(__name__)\n"
    "@app.get('/')\ndef word():\n    return '{word}' + render_template('more.html')\n"
)


@pytest.fixture(scope="module")
def plugins(open_folder: Path) -> Path:
    folder = open_folder / "plugins"
    for name in ("words", "shop"):
        (folder / name / "templates").mkdir(parents=True)
        (folder / name / "plugin.toml").write_text(MANIFEST.format(name=name))
    with (folder / "shop" / "plugin.toml").open("a") as file:
        file.write('[wsgi]\napplication = "shop:app"\nmount = "/shop"\n')
    (folder / "shop" / "templates" / "more.html").write_text("!")
    (folder / "shop" / "shop.py").write_text(APPLICATION.format(word="one"))
    (folder / "words" / "__init__.py").write_text(PLUGIN.format(word="one"))
    return folder


@pytest.fixture(scope="module")
def server(plugins: Path) -> Iterator[Server]:
    with servers.running("dev", PLUGINS_DIR=str(plugins)) as running:
        yield running


def wait_for(server: Server, path: str, words: str) -> None:
    servers.wait_until(lambda: server.ask(path).body.decode() == words, PATIENCE_SECONDS, f"{words} at {path}")


def test_save_of_a_plugin_is_answered(server: Server, plugins: Path) -> None:
    wait_for(server, "/words/", "one")

    (plugins / "words" / "__init__.py").write_text(PLUGIN.format(word="two"))

    wait_for(server, "/words/", "two")


def test_saves_of_an_application_are_answered_and_a_broken_one_costs_nothing(server: Server, plugins: Path) -> None:
    wait_for(server, "/shop/", "one!")

    (plugins / "shop" / "shop.py").write_text(APPLICATION.format(word="two"))
    wait_for(server, "/shop/", "two!")
    (plugins / "shop" / "shop.py").write_text("from flask import Flask, Shop\n")
    refused = "plugin shop was not reloaded, its processes serve on:"
    servers.wait_until(lambda: refused in server.log(), PATIENCE_SECONDS, refused)
    answer = server.ask("/shop/")
    (plugins / "shop" / "templates" / "more.html").write_text("?")
    (plugins / "shop" / "shop.py").write_text(APPLICATION.format(word="three"))

    wait_for(server, "/shop/", "three?")
    assert (answer.status, answer.body) == (200, b"two!")
    assert "cannot import name 'Shop' from 'flask'" in server.log()
