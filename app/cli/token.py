"""``flask token``: make, list and revoke API tokens, where STATE_STORE keeps them; the service may run or not."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

import click

from app.auth import stores, transfer
from app.auth.tokens import SCOPES, Token, TokenStore
from app.cli import known_settings, terminal
from app.host import permissions

DAY_SECONDS = 86400.0
DEFAULT_DAYS = 365.0
INTERNAL_SECONDS = 300.0
HEADS = ("Name", "Id", "Scopes", "Made", "Expires", "Last used")


@click.group(cls=terminal.Group)
def command() -> None:
    """API tokens: who may call the service, and for what."""


@command.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=("predict",),
    show_default=True,
    help="What it allows; may be given twice.",
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Days until it expires.  [default: 365]")
@click.option("--never", "is_endless", is_flag=True, help="It does not expire.")
@click.option("--internal", "is_internal", is_flag=True, help="For a program of ours: five minutes, and not listed.")
@terminal.json_option
def create(
    name: str, scopes: tuple[str, ...], days: float | None, is_endless: bool, is_internal: bool, is_json: bool
) -> None:
    """Make a token for NAME, the program or person that calls. It is printed once, and cannot be shown again."""
    if is_endless + is_internal + (days is not None) > 1:
        raise terminal.Failure("Only one of --days, --never and --internal can be.", status=terminal.WRONG_SETTINGS)
    seconds = INTERNAL_SECONDS if is_internal else (days or DEFAULT_DAYS) * DAY_SECONDS
    with _store() as store:
        token, text = store.create(name, scopes, None if is_endless else seconds, is_internal=is_internal)
    if is_json:
        terminal.print_json({**_row(token), "token": text})
        return
    click.echo(f"\n  {click.style(text, fg='green', bold=True)}\n")
    click.echo(f"  {token.name}, for {_scopes(token)}, until {_end(token)}. Its id is {token.id}.")
    click.echo("  Keep it now: it is printed this once, and only its hash is kept here.")
    click.echo("  Callers send it as  X-Api-Token: cask_…  or  Authorization: Bearer cask_…\n")


@command.command("list")
@click.option("--all", "with_ended", is_flag=True, help="Also those that were revoked or have expired.")
@terminal.json_option
def list_tokens(with_ended: bool, is_json: bool) -> None:
    """Who may come in, for what, until when, and when they last did."""
    now = time.time()
    with _store() as store:
        every = store.all()
    shown = [each for each in every if with_ended or each.state(now) == "valid"]
    if is_json:
        terminal.print_json([_row(each) for each in shown])
    elif not shown:
        terminal.print_note("There is no valid token. Make one: flask token create NAME")
    else:
        heads = (*HEADS, "State") if with_ended else HEADS
        terminal.print_table(heads, [_cells(each, now)[: len(heads)] for each in shown])
    if len(every) > len(shown) and not is_json:
        terminal.print_note(f"{len(every) - len(shown)} more have ended: flask token list --all")


@command.command()
@click.argument("known_as", metavar="NAME|ID")
@terminal.json_option
def revoke(known_as: str, is_json: bool) -> None:
    """End a token. Every process refuses it within a second, and people who signed in with it are signed out."""
    with _store() as store:
        token = store.revoke(known_as)
    if is_json:
        terminal.print_json(_row(token))
    else:
        click.echo(f"{token.name} ({token.id}) is revoked: every process refuses it within a second.")


@command.command("export")
@click.argument("path", metavar="FILE|-", type=click.Path(dir_okay=False, allow_dash=True))
def export_tokens(path: str) -> None:
    """Write all tokens into FILE (mode 0600), revoked ones too: hashes, from which nobody can tell a token."""
    # Opened before the command becomes the service's user, who may not write there.
    with _output(path) as file, _store() as store:
        every = store.all()
        file.write(transfer.exported(every))
    click.echo(f"{_tokens(len(every))} exported. Take them in elsewhere: flask token import {path}", err=True)


@command.command("import")
@click.argument("file", metavar="FILE|-", type=click.File(encoding="utf-8"))
def import_tokens(file: TextIO) -> None:
    """Take in the tokens of FILE, all or none. A revocation on either side holds; doing it twice changes nothing."""
    try:
        text = file.read()
    except UnicodeDecodeError as error:
        raise terminal.Failure(f"{file.name} is no text: {error}.", next_step=transfer.HINT) from None
    with _store() as store:
        done = transfer.imported(store, text, time.time())
    click.echo(f"{_tokens(done.added)} added, {done.revoked} revoked, {done.unchanged} known already.")


@contextmanager
def _output(path: str) -> Iterator[TextIO]:
    """Standard output for «-», else a regular file that only its owner may read."""
    if path == "-":
        yield sys.stdout
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            yield file
    except OSError as error:
        raise terminal.Failure(
            f"{path} cannot be written: {error.strerror}.", next_step="Name another file."
        ) from error


@contextmanager
def _store() -> Iterator[TokenStore]:
    # Not checked: only the folder is needed, and secrets may be for the service's eyes alone.
    settings = known_settings.read(*known_settings.TOKENS)
    if settings.state_store == "redis" and not settings.text("redis_url"):
        raise terminal.Failure("STATE_STORE is redis, and REDIS_URL is not set.", status=terminal.WRONG_SETTINGS)
    permissions.become_owner(settings.state_dir)
    store = stores.store(settings)
    try:
        yield store
    finally:
        store.close()


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _row(token: Token) -> dict[str, Any]:
    moments = {"created": token.created, "expires": token.expires, "last_used": token.last_used}
    told = {name: None if at is None else datetime.fromtimestamp(at, UTC).isoformat() for name, at in moments.items()}
    about = {"name": token.name, "id": token.id, "scopes": sorted(token.scopes)}
    return {**about, **told, "state": token.state(time.time())}


def _cells(token: Token, now: float) -> tuple[str | None, ...]:
    used = None if token.last_used is None else _ago(now - token.last_used)
    expires = None if token.expires is None else _day(token.expires)
    return (token.name, token.id, _scopes(token), _day(token.created), expires, used, token.state(now))


def _scopes(token: Token) -> str:
    return ", ".join(scope for scope in SCOPES if scope in token.scopes)


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def _end(token: Token) -> str:
    if token.expires is None:
        return "it is revoked"
    return datetime.fromtimestamp(token.expires, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _ago(seconds: float) -> str:
    for unit, size in (("d", DAY_SECONDS), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
