"""``flask backup``: make, check and restore backups. Making one needs no stop; restoring one does."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import click

from app import config
from app.backups import archive, contents, encryption, facts, restoring, trial
from app.backups.contents import PARTS
from app.cli import known_settings, terminal
from app.config import Settings
from app.errors import BackupError

# What a service is started from.
CHECKED = (contents.STATE, contents.MODELS, contents.PLUGINS)
FOLDER = config.ROOT / "backups"
passphrase_option = click.option(
    "--passphrase-file", metavar="FILE", help="Its first line is the passphrase of the backup; - is standard input."
)
only_option = click.option(
    "--only", "parts", multiple=True, type=click.Choice(PARTS), help="This part alone; may be given several times."
)


@click.group(cls=terminal.Group)
def command() -> None:
    """Back up what only this machine has, while it serves; check and restore a backup."""


@command.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@only_option
@click.option("--encrypt", "is_encrypted", is_flag=True, help="Ask for a passphrase, and encrypt with it.")
@passphrase_option
@click.option("--keep", type=click.IntRange(1), help="Remove older ones of the folder backups but for so many.")
def create(
    file: Path | None, parts: tuple[str, ...], is_encrypted: bool, passphrase_file: str | None, keep: int | None
) -> None:
    """Write one archive: tokens, jobs, versions, builds, env/local.env, secrets, models and plugins.

    FILE is backups/cask-<time>.tar where it is not given; - is standard output.
    """
    is_encrypted = is_encrypted or passphrase_file is not None
    passphrase = _passphrase(passphrase_file, is_new=True) if is_encrypted else ""
    ending = "tar.enc" if is_encrypted else "tar"
    file = file or FOLDER / f"cask-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{ending}"
    settings, chosen = known_settings.read(*known_settings.STORED), parts or PARTS
    started = time.monotonic()
    with contents.collected(settings, chosen) as entries, _target(file, passphrase) as target:
        size = archive.write(target, entries, facts.about(settings, chosen, entries))
    _say(f"{len(entries)} files, {size / 1e6:.1f} MB, in {time.monotonic() - started:.1f} s: {file}")
    for name in _elsewhere(settings):
        _say(f"Not in it: {name}. Keep a copy of your own.")
    if is_encrypted:
        _say(f"Nobody opens it without the passphrase. By hand: {encryption.BY_HAND}")
    elif str(file) != "-":
        _say("It holds secrets in clear; --encrypt encrypts it.")
    if str(file) != "-":
        _say(f"Check it: make backup-check FILE={file}")
    for old in sorted(FOLDER.glob("cask-*.tar*"), reverse=True)[keep:] if keep else ():
        old.unlink()
        _say(f"Removed {old}.")


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path))
@passphrase_option
def check(file: Path, passphrase_file: str | None) -> None:
    """Compare every file with its sum, restore it into a throw-away service, and see that all of it is there."""
    settings = known_settings.read()
    with tempfile.TemporaryDirectory(prefix="cask-backup-") as scratch, _source(file, passphrase_file) as source:
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
@passphrase_option
@terminal.yes_option
def restore(file: Path, parts: tuple[str, ...], passphrase_file: str | None, is_sure: bool) -> None:
    """Put a backup back. What was there is moved aside; the service must be stopped."""
    # On an empty machine the secrets that the settings want are in the backup.
    settings = known_settings.read(*known_settings.STORED)
    chosen = parts or PARTS
    places = contents.folders(settings)
    terminal.confirm(f"Replace {', '.join(str(places[part]) for part in chosen)}?", is_sure=is_sure)
    with _source(file, passphrase_file) as source:
        about, kept = restoring.restore(settings, source, chosen)
    click.echo(f"Restored the backup of {about['made']}: {', '.join(set(about['parts']) & set(chosen))}.")
    for folder in kept:
        click.echo(f"What was there before is in {folder}; remove it when all is well.")


def _elsewhere(settings: Settings) -> list[str]:
    """Secrets and certificates that lie in none of the parts."""
    ours = config.ROOT / "secrets"
    paths = [*settings.secret_files, *filter(None, (settings.tls_certificate, settings.tls_key))]
    return [str(path) for path in paths if not Path(path).is_relative_to(ours)]


def _passphrase(file: str | None, *, is_new: bool) -> str:
    """From a file, from standard input (-), or asked for. Raises BackupError, OSError, click.Abort."""
    if file == "-":
        return encryption.check(sys.stdin.readline().rstrip("\n"))
    if file is not None:
        return encryption.read_passphrase(Path(file))
    given: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True)
    return encryption.check(given)


@contextlib.contextmanager
def _target(file: Path, passphrase: str) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        target = sys.stdout.buffer if str(file) == "-" else stack.enter_context(archive.publishing(file))
        yield stack.enter_context(encryption.encrypting(target, passphrase)) if passphrase else target


@contextlib.contextmanager
def _source(file: Path, passphrase_file: str | None) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        source = sys.stdin.buffer if str(file) == "-" else stack.enter_context(file.open("rb"))
        assert isinstance(source, io.BufferedReader)
        if not encryption.is_encrypted(source):
            yield source
            return
        if passphrase_file is None and not sys.stdin.isatty():
            raise BackupError("The backup is encrypted.", hint="Give its passphrase: --passphrase-file FILE")
        yield stack.enter_context(encryption.decrypting(source, _passphrase(passphrase_file, is_new=False)))


def _say(text: str) -> None:
    """Beside the archive, which may be on standard output."""
    click.echo(text, err=True)
