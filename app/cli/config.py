"""``flask config``: show, compare, check and document the settings. Reads the environment through app.config alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from app import config
from app.cli import completion, known_settings, releases, settings_document, terminal, values
from app.cli.releases import Change
from app.config import Sources
from app.errors import SettingsError

env_option = click.option(
    "--env", default="", shell_complete=completion.environments, help="The environment; else the one that ENV names."
)


@click.group(cls=terminal.Group)
def command() -> None:
    """Show, compare, check and document the settings."""


@command.command()
@env_option
@terminal.json_option
def show(env: str, is_json: bool) -> None:
    """Print every value in force, where it comes from and what it means. Secrets are masked."""
    settings = config.resolve(*Sources().of(env))
    problem = config.problem(settings)
    if is_json:
        every = [values.row(settings, one) for one in config.DECLARATIONS.values()]
        keys = ("section", "name", "value", "source", "meaning")
        every += [dict(zip(keys, each, strict=True)) for each in values.plugin_rows(settings)]
        terminal.print_json({"env": settings.env, "problem": problem or None, "settings": every})
        return
    rows = [
        (one.section, one.name, values.shown(settings, one), settings.sources[one.field], one.sentence)
        for one in config.DECLARATIONS.values()
    ]
    rows += values.plugin_rows(settings)
    heads = ("Setting", "Value", "Source", "Meaning")
    terminal.print_table(heads, rows, title=f"Settings in force for {settings.env}", has_sections=True)
    if problem:
        terminal.print_note(f"The service would not start so: {problem}")


@command.command()
@click.argument("a", shell_complete=completion.environments)
@click.argument("b", shell_complete=completion.environments)
@click.option("--since", default="", help="Compare B with that of another release: a git revision, bundle or image.")
@terminal.json_option
def diff(a: str, b: str, since: str, is_json: bool) -> None:
    """Print what differs between two environments, such as dev and prod, as the repository describes them."""
    if since:
        _print_changes(Sources().root, since, b, is_json)
        return
    left, right = (config.describe(name, Sources().root) for name in (a, b))
    # Secrets are no part of the repository's description, so there is nothing to compare.
    every = (one for one in config.DECLARATIONS.values() if not one.is_secret)
    different = [one for one in every if left.text(one.field) != right.text(one.field)]
    if is_json:
        terminal.print_json({one.name: {s.env: values.plain(s, one) for s in (left, right)} for one in different})
    elif not different:
        click.echo(f"Nothing differs between {left.env} and {right.env}.")
    else:
        rows = [
            (one.section, one.name, values.shown(left, one), values.shown(right, one), one.sentence)
            for one in different
        ]
        title = f"What differs between {left.env} and {right.env}"
        terminal.print_table(("Setting", left.env, right.env, "Meaning"), rows, title=title, has_sections=True)


@command.command()
@env_option
@terminal.json_option
def check(env: str, is_json: bool) -> None:
    """Exit 0 if the service may start so; else say why not and exit 2."""
    environ, root, secrets = Sources().of(env)
    settings = config.load(environ, root, secrets)
    for name in config.removed(environ, root):
        click.echo(f"{name} has no effect any more, see docs/configuration.md; remove it.", err=True)
    count = len(config.DECLARATIONS)
    if is_json:
        terminal.print_json({"env": settings.env, "settings": count})
    else:
        click.echo(f"The {count} settings for {settings.env} are in order.")


@command.command()
@click.argument("name", shell_complete=completion.settings)
@env_option
@click.option("--secret", "is_revealed", is_flag=True, help="Allow a secret to be printed.")
@terminal.json_option
def get(name: str, env: str, is_revealed: bool, is_json: bool) -> None:
    """Print one value, such as that of PORT, for scripts."""
    one = config.DECLARATIONS.get(name.lower())
    if one is None:
        known = [one.name for one in config.DECLARATIONS.values()]
        raise SettingsError(f"{name!r} is no setting.{config.did_you_mean(name, known)}")
    if one.is_secret and not is_revealed:
        raise SettingsError(f"{one.name} is secret.", hint="Add --secret to print it all the same.")
    settings = known_settings.read(one.field, place=Sources().of(env))
    if is_json:
        terminal.print_json(values.plain(settings, one, is_revealed=True))
    else:
        click.echo(settings.text(one.field))


@command.command()
def docs() -> None:
    """Write docs/configuration.md anew."""
    root = Sources().root
    (root / config.DOCUMENT).write_text(settings_document.text(root), encoding="utf-8")
    click.echo(f"Wrote {config.DOCUMENT}.")


def _print_changes(root: Path, since: str, env: str, is_json: bool) -> None:
    env = config.describe(env, root).env
    found = releases.changes(root, since, env)
    if is_json:
        terminal.print_json([asdict(each) for each in found])
    elif not found:
        click.echo(f"No setting of {env} differs from {since}.")
    else:
        rows = [(each.kind, each.name, each.there, each.here, _meaning(each, found)) for each in found]
        terminal.print_table(
            ("What", "Setting", since, "Here", "Meaning"), rows, title=f"Settings of {env} since {since}"
        )
    for name in config.given_locally(root) & {each.name for each in found if each.kind == "gone"}:
        terminal.print_note(f"env/local.env sets {name}, which has no effect any more; remove it.")


def _meaning(change: Change, found: list[Change]) -> str:
    declared = config.DECLARATIONS.get(change.name.lower())
    return declared.sentence if declared else releases.renamed(change.name, found)
