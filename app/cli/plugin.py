"""``flask plugin``: your own Flask code: see, begin, check, test. Behind ``make plugin-…``."""

from __future__ import annotations

import contextlib
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
from app.errors import ManifestError
from app.models import manifests
from app.web.ops import plugins

# What a new plugin is made from.
EXAMPLE = "claims"
MODEL = "site-safety-detector"
# In the Python of an application.
FLASK = """
cask.place_instance()
from flask.cli import main
sys.argv = ["flask", "--app", *sys.argv[1:]]
main()
"""


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


@command.command()
@click.argument("name")
def install(name: str) -> None:
    """Lock and install the libraries that a plugin's requirements.txt names."""
    from app.plugins import libraries

    settings = config.resolve()
    folder = plugin_settings.folders(settings.model_copy(update={"plugins": (name,)}))[0]
    is_alone = _is_application(folder)
    others = [each for each in plugin_settings.folders(settings) if each != folder and not _is_application(each)]
    libraries.install(folder, () if is_alone else others, click.echo, is_alone=is_alone)
    tried = "" if is_alone else f"make plugin-test NAME={name}, then "
    click.echo(f"{folder / 'requirements.lock'} is installed. Next: {tried}make serve, or make reload where it runs")


@command.command("flask", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def own_command(name: str, options: tuple[str, ...]) -> None:
    """Run a ``flask`` command of a whole application, such as init-db, as the service's user and with its libraries."""
    from app.host import permissions
    from app.plugins import application_python, manifest

    settings = config.load()
    plugin = manifest.read(plugin_settings.folders(settings.model_copy(update={"plugins": (name,)}))[0])
    if plugin.application is None:
        raise terminal.Failure(f"{name} is no application of [wsgi]; its code runs in Cask.", next_step="flask --help")
    permissions.become_owner(settings.state_dir)
    own = plugin_settings.own_folder(settings, name)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = f"{plugin.application.module}:{plugin.application.name}"
    called = application_python.command(plugin.application, own, FLASK, target, *options)
    raise SystemExit(subprocess.run(called, cwd=plugin.folder, check=False).returncode)


def _is_application(folder: Path) -> bool:
    return "wsgi" in plugin_settings.read_table(folder / plugin_settings.FILE)


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def test(name: str | None, options: tuple[str, ...]) -> None:
    """Run the tests of a plugin, or of all that have some, with the models of the store; OPTIONS are pytest's."""
    settings = config.load()
    chosen = settings.model_copy(update={"plugins": (name,)}) if name else settings
    folders = [each for each in plugin_settings.folders(chosen) if name or _has_tests(each)]
    if name and not _has_tests(folders[0]):
        raise terminal.Failure(f"{folders[0] / 'tests'} has no test_*.py.", next_step="docs/extending.md, Tests")
    statuses = [_test(settings, folder, options) for folder in folders]
    if not folders:
        click.echo(f"No plugin in {settings.plugins_dir} has tests.")
    raise SystemExit(next((status for status in statuses if status), 0))


def _has_tests(folder: Path) -> bool:
    # Those of a whole application are run as its people run them, with its own libraries.
    return not _is_application(folder) and any((folder / "tests").rglob("test_*.py"))


def _test(settings: Settings, folder: Path, options: tuple[str, ...]) -> int:
    plugins = ("-p", "app.plugins.testing", "-p", "no:cacheprovider")
    place = ("-c", os.devnull, "--rootdir", str(folder), "--import-mode=importlib")
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *place, *options, str(folder / "tests")]
    return subprocess.run(["env", f"PLUGINS={folder.name}", *command], cwd=settings.root, check=False).returncode


def _mounted(settings: Settings) -> Flask:
    from app.cli import routes

    return routes.application(settings, plugins_on_error="stop")


def _detector(settings: Settings) -> str:
    """A detector of this store, for the route to ask."""
    for name, versions in manifests.versions(settings.models_dir).items():
        with contextlib.suppress(ManifestError):
            # A model with code has no task of ours.
            task = tasks.BY_NAME.get(manifests.read(settings.models_dir / name / versions[-1]).task)
            if task is not None and task.rows == "detections":
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
