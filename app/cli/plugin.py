"""``flask plugin``: your own Flask code: see, begin, check, test. Behind ``make plugin-…``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
from flask import Flask

from app import config, tasks
from app.cli import terminal
from app.config import Settings, plugin_settings
from app.config.values import PLUGIN_NAME
from app.models import manifests
from app.web.ops import plugins

# What a new plugin is made from.
EXAMPLE = "claims"
MODEL = "site-safety-detector"


@click.group(cls=terminal.Group)
def command() -> None:
    """Your own Flask code: see, begin, check, test."""


@command.command("list")
@terminal.json_option
def list_plugins(is_json: bool) -> None:
    """Print what lies in PLUGINS_DIR, and what of it serves, if the service runs."""
    settings = config.resolve()
    noted = {row["name"]: row for row in plugins.rows(settings.state_dir)}
    rows = [
        {
            "version": "",
            "state": "",
            "reason": "",
            **noted.get(folder.name, {}),
            "name": folder.name,
            "folder": str(folder),
        }
        for folder in plugin_settings.folders(settings)
    ]
    if is_json:
        terminal.print_json(rows)
    elif not rows:
        click.echo(f"There is no plugin in {settings.plugins_dir}. make plugin-new NAME=claims begins one.")
    else:
        cells = [tuple(row[key] for key in ("name", "version", "state", "reason", "folder")) for row in rows]
        terminal.print_table(("Plugin", "Version", "State", "Reason", "Folder"), cells)


@command.command()
def check() -> None:
    """Mount all plugins on an app that nobody asks; exit 2 where one is broken. Runs their code."""
    from app.plugins import mounting

    settings = config.load()
    app = _mounted(settings)
    names = [plugin.name for plugin in app.extensions[mounting.EXTENSION]]
    click.echo(f"The plugins are in order: {', '.join(names) or 'none is there'}.")


@command.command()
@click.argument("name")
def new(name: str) -> None:
    """Begin a plugin with a route, a page, a test and a load scenario."""
    settings = config.resolve()
    if not PLUGIN_NAME.fullmatch(name):
        raise terminal.Failure(
            f"NAME is {name!r}; expected small letters, digits and _, beginning with a letter, at most 40.",
            next_step="make plugin-new NAME=claims",
        )
    folder = settings.plugins_dir / name
    if folder.exists():
        raise terminal.Failure(
            f"{folder} is there already; nothing was touched.", next_step=f"make plugin-test NAME={name}"
        )
    _write(settings.root / "examples" / "plugins" / EXAMPLE, folder, name, _detector(settings))
    click.echo(f"{folder} is written: a route, a page, a test and a load scenario.")
    click.echo(
        f"Next: make plugin-test NAME={name}, then make dev and open /{name}/page. How it works: docs/extending.md"
    )


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def test(name: str, options: tuple[str, ...]) -> None:
    """Run the tests of a plugin, with the models of the store; OPTIONS are pytest's."""
    settings = config.load().model_copy(update={"plugins": (name,)})
    folder = plugin_settings.folders(settings)[0]
    if not list((folder / "tests").rglob("test_*.py")):
        raise terminal.Failure(f"{folder / 'tests'} has no test_*.py.", next_step="docs/extending.md, Tests")
    arguments = [
        "-q",
        "-p",
        "app.plugins.testing",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
    ]
    arguments.append("--import-mode=importlib")
    done = subprocess.run(
        ["env", f"PLUGINS={name}", sys.executable, "-m", "pytest", *arguments, *options, str(folder / "tests")],
        cwd=settings.root,
        check=False,
    )
    raise SystemExit(done.returncode)


def _mounted(settings: Settings) -> Flask:
    from app.cli import routes

    return routes.application(settings, plugins_on_error="stop")


def _detector(settings: Settings) -> str:
    """A detector of this store, for the route to ask."""
    for name, versions in manifests.versions(settings.models_dir).items():
        task = manifests.read(settings.models_dir / name / versions[-1]).task
        if tasks.BY_NAME[task].rows == "detections":
            return name
    return MODEL


def _write(example: Path, folder: Path, name: str, model: str) -> None:
    """Copy the example under another name: in paths, in code and on pages."""
    words = {EXAMPLE: name, EXAMPLE.capitalize(): name.replace("_", " ").capitalize(), MODEL: model}
    pattern = re.compile("|".join(words))
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("translations", "__pycache__"))
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            path.write_text(pattern.sub(lambda found: words[found[0]], path.read_text()))
        if EXAMPLE in path.name:
            path.rename(path.with_name(path.name.replace(EXAMPLE, name)))
