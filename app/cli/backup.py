"""``flask backup``: make, check and restore backups. Making one needs no stop; restoring one does."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from app import __version__, config
from app.backups import archive, contents, restoring, trial
from app.backups.contents import PARTS
from app.cli import terminal
from app.config import Settings

# What a service is started from.
CHECKED = (contents.STATE, contents.MODELS, contents.PLUGINS)
only_option = click.option(
    "--only", "parts", multiple=True, type=click.Choice(PARTS), help="This part alone; may be given several times."
)


@click.group(cls=terminal.Group)
def command() -> None:
    """Back up what only this machine has, while it serves; check and restore a backup."""


@command.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@only_option
def create(file: Path | None, parts: tuple[str, ...]) -> None:
    """Write one archive: tokens, jobs, versions, builds, env/local.env, secrets, models and plugins.

    FILE is backups/cask-<time>.tar where it is not given; - is standard output.
    """
    file = file or config.ROOT / "backups" / f"cask-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"
    settings, chosen = config.load(), parts or PARTS
    started = time.monotonic()
    with contents.collected(settings, chosen) as entries, _target(file) as target:
        size = archive.write(target, entries, _about(settings, chosen))
    _say(f"{len(entries)} files, {size / 1e6:.1f} MB, in {time.monotonic() - started:.1f} s: {file}")
    for name in _elsewhere(settings):
        _say(f"Not in it: {name}. Keep a copy of your own.")
    if str(file) != "-":
        _say(f"It holds secrets in clear; gpg --symmetric {file} encrypts it. Check it: make backup-check FILE={file}")


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path))
def check(file: Path) -> None:
    """Compare every file with its sum, restore it into a throw-away service, and see that all of it is there."""
    settings = config.load()
    with tempfile.TemporaryDirectory(prefix="cask-backup-") as scratch, _source(file) as source:
        places = {part: Path(scratch) / part for part in CHECKED}
        for folder in places.values():
            folder.mkdir()
        about = archive.extract(source, CHECKED, places)
        click.echo(f"Whole. Made {about['made']} by Cask {about['cask']} for {about['env']}.")
        for line in trial.run(settings, about, places):
            click.echo(line)


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path))
@only_option
@terminal.yes_option
def restore(file: Path, parts: tuple[str, ...], is_sure: bool) -> None:
    """Put a backup back. What was there is moved aside; the service must be stopped."""
    settings = config.load()
    chosen = parts or PARTS
    places = contents.folders(settings)
    terminal.confirm(f"Replace {', '.join(str(places[part]) for part in chosen)}?", is_sure=is_sure)
    with _source(file) as source:
        about, kept = restoring.restore(settings, source, chosen)
    click.echo(f"Restored the backup of {about['made']}: {', '.join(set(about['parts']) & set(chosen))}.")
    for folder in kept:
        click.echo(f"What was there before is in {folder}; remove it when all is well.")


def _about(settings: Settings, parts: tuple[str, ...]) -> dict[str, Any]:
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "cask": __version__,
        "env": settings.env,
        "parts": list(parts),
        **trial.counts(settings.state_dir),
    }


def _elsewhere(settings: Settings) -> list[str]:
    """Secrets and certificates that lie in none of the parts."""
    ours = config.ROOT / "secrets"
    paths = [*settings.secret_files, *filter(None, (settings.tls_certificate, settings.tls_key))]
    return [str(path) for path in paths if not Path(path).is_relative_to(ours)]


@contextlib.contextmanager
def _target(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdout.buffer
        return
    with archive.publishing(file) as target:
        yield target


@contextlib.contextmanager
def _source(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    with file.open("rb") as source:
        yield source


def _say(text: str) -> None:
    """Beside the archive, which may be on standard output."""
    click.echo(text, err=True)
