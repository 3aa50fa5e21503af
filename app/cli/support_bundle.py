"""``flask support-bundle``: one archive for the person who helps you, without secrets."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from app import config
from app.cli import completion, terminal
from app.cli.support import pieces
from app.cli.support.redaction import Redactor
from app.config import Settings

OUTPUT = "-"
MOST_PIECE_BYTES = 8 << 20


@click.command("support-bundle", cls=terminal.Command)
@click.argument("file", required=False)
@click.option("--env", default="", shell_complete=completion.environments, help="The environment; else that of ENV.")
@click.option("--log", default="", help="A file with the last lines of the log, - for the input; else LOG_FILE.")
def command(file: str | None, env: str, log: str) -> None:
    """Write an archive for the person who helps you, without secrets.

    It holds versions, settings, doctor, status, metrics, log and limits. FILE is made anew, for you alone; - writes
    it to the output. Works when the service is down. What was taken out is counted: look into it all the same before
    you send it.
    """
    settings, problem = _settings(env)
    redactor = Redactor(pieces.known_secrets(settings))
    name = f"cask-support-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    found = {"problem.txt": problem} if problem else {}
    for piece, make in pieces.pieces(settings, _given(log)):
        found[piece] = _text(make)
    clean = {piece: redactor.clean(text) for piece, text in found.items()}
    for piece in [piece for piece, text in clean.items() if not redactor.is_clean(text)]:
        clean[piece] = "Left out: a secret was still in it.\n"
    clean["CONTENTS.txt"] = contents = _contents(clean, redactor.counts)
    target = file or str(Path.cwd() / f"{name}.tar.gz")
    _write(target, _archive(name, clean))
    click.echo(contents, err=True)
    if target != OUTPUT:
        click.echo(f"Wrote {target}. Look into it, then send it.", err=True)


def _settings(env: str) -> tuple[Settings, str]:
    """Those of this start as far as they can be read, and what is wrong with them."""
    settings, problems = config.resolve_known(config.Sources().of(env))
    return settings, "".join(f"The settings are wrong: {each}\n" for each in problems)


def _given(log: str) -> Callable[[], str] | None:
    if log == OUTPUT:
        return lambda: sys.stdin.buffer.read(MOST_PIECE_BYTES).decode("utf-8", "replace")
    return (lambda: Path(log).read_text(errors="replace")[-MOST_PIECE_BYTES:]) if log else None


def _text(make: Callable[[], str]) -> str:
    """A piece, or why there is none: the others are of use all the same."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - whatever it is, the rest helps
        return f"Not there: {type(error).__name__}: {error}\n"


def _contents(found: dict[str, str], counts: Counter[str]) -> str:
    """What is in the bundle, and how much of which kind was taken out."""
    rows = [f"  {len(text.encode()):>9}  {name}" for name, text in sorted(found.items())]
    taken = [f"  {count:>9}  {kind}" for kind, count in counts.most_common()] or ["          nothing"]
    return "\n".join(["In this bundle, in bytes:", *rows, "", "Taken out, how often:", *taken, ""])


def _archive(name: str, found: dict[str, str]) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        for piece, text in sorted(found.items()):
            data = text.encode("utf-8", "replace")
            about = tarfile.TarInfo(f"{name}/{piece}")
            about.size, about.mtime, about.mode = len(data), int(time.time()), 0o600
            archive.addfile(about, io.BytesIO(data))
    return memory.getvalue()


def _write(target: str, data: bytes) -> None:
    if target == OUTPUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise terminal.Failure(
            f"{target} cannot be written: {error.strerror}.", next_step="Name another by FILE=…, or remove it."
        ) from None
