"""API tokens: who may ask, and for what. Kept as hashes below STATE_DIR, compared in RAM. A leaf.

A token is ``cask_<id>_<secret>``. The id finds its row and may be shown; of the whole only the SHA-256 is kept, which
is enough for a secret of 192 random bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import StateUnusableError, TokenError, TokenInvalidError
from app.storage.sqlite import Database, is_locked
from app.texts import Text, gettext_noop

log = logging.getLogger("cask.web")

FILE_NAME = "tokens.sqlite3"
SCOPES = ("predict", "admin")
FORM = re.compile(r"cask_([0-9a-f]{8})_[0-9a-f]{48}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# So old a look at the file is good enough: a revocation works in all processes within this time.
LOOK_SECONDS = 0.5
# A token that is not known may have been made a moment ago; floods of wrong ones must not read the file each time.
LOOK_AGAIN_SECONDS = 0.05
LAST_USED_SECONDS = 60.0
# Whoever only notes a use does not wait for those who write.
NOTING_BUSY_SECONDS = 0.02
MIGRATIONS = (
    """
    CREATE TABLE tokens (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        hash BLOB NOT NULL,
        scopes TEXT NOT NULL,
        created REAL NOT NULL,
        expires REAL,
        revoked REAL,
        last_used REAL,
        is_internal INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE changes (number INTEGER NOT NULL);
    INSERT INTO changes VALUES (0);
    """,
    # Sessions of people who signed out: a copy of their cookie is worth nothing. Until then each would end by itself.
    "CREATE TABLE ended_sessions (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;",
)


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of one token. Moments are seconds since 1970."""

    id: str
    name: str
    hash: bytes = field(repr=False)
    scopes: frozenset[str]
    created: float
    expires: float | None = None
    revoked: float | None = None
    last_used: float | None = None
    is_internal: bool = False

    def state(self, now: float) -> str:
        """One of valid, expired, revoked."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "valid"


class TokenStore:
    """The tokens as an operator changes them. Raises StateUnusableError where the file cannot be used."""

    def __init__(self, state_dir: Path, now: Callable[[], float] = time.time) -> None:
        self._database = Database(state_dir / FILE_NAME, MIGRATIONS, is_durable=True)
        self._now = now

    def create(
        self,
        name: str,
        scopes: Iterable[str] = ("predict",),
        lifetime_seconds: float | None = None,
        *,
        is_internal: bool = False,
    ) -> tuple[Token, str]:
        """A new token and its text, which nobody can tell again. None lives until it is revoked.

        Internal ones are for our own programs: they need no name of their own and vanish when they have expired.
        Raises TokenError for a wrong name or scope, or a name that a valid token has.
        """
        requested, now = frozenset(scopes), self._now()
        _check(name, requested)
        token_id, secret = secrets.token_hex(4), secrets.token_hex(24)
        text = f"cask_{token_id}_{secret}"
        expires = None if lifetime_seconds is None else now + lifetime_seconds
        token = Token(token_id, name, _hash(text), requested, now, expires, is_internal=is_internal)
        with self._database.transaction() as connection:
            rows = [_token(row) for row in connection.execute("SELECT * FROM tokens WHERE name = ?", (name,))]
            if not is_internal and any(each.state(now) == "valid" and not each.is_internal for each in rows):
                raise TokenError(
                    "There is a valid token of the name %(name)s.",
                    hint="Choose another name, or revoke that one: flask token revoke %(plain)s",
                    name=repr(name),
                    plain=name,
                )
            connection.execute("DELETE FROM tokens WHERE is_internal AND expires < ?", (now,))
            connection.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, ?)",
                (token.id, name, token.hash, " ".join(sorted(requested)), now, expires, is_internal),
            )
            _note_change(connection)
        return token, text

    def revoke(self, known_as: str) -> Token:
        """End the valid token of this id or name. Raises TokenError when there is none."""
        now = self._now()
        with self._database.transaction() as connection:
            found = connection.execute(
                "SELECT * FROM tokens WHERE (id = ? OR name = ?) AND NOT is_internal", (known_as, known_as)
            )
            token = next((each for each in map(_token, found) if each.state(now) == "valid"), None)
            if token is None:
                raise TokenError(
                    "There is no valid token of the id or name %(name)s.",
                    hint="flask token list shows them.",
                    name=repr(known_as),
                )
            connection.execute("UPDATE tokens SET revoked = ? WHERE id = ?", (now, token.id))
            _note_change(connection)
        return token

    def discard(self, token: Token) -> None:
        """Forget an internal token that is no longer needed."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM tokens WHERE id = ?", (token.id,))
            _note_change(connection)

    def all(self) -> list[Token]:
        """Every token that people made, the newest last."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM tokens WHERE NOT is_internal ORDER BY created")
            return [_token(row) for row in rows]

    def is_any_valid(self) -> bool:
        """Whether anybody could come in."""
        now = self._now()
        return any(each.state(now) == "valid" for each in self.all())

    def close(self) -> None:
        """Close the connections that no thread uses."""
        self._database.close()


class TokenTable:
    """All tokens in RAM, as old as ``LOOK_SECONDS`` at most. Thread-safe.

    ``clock`` counts seconds for looking again, ``now`` is the time of day, for what expires.
    """

    def __init__(
        self, state_dir: Path, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._database = Database(state_dir / FILE_NAME, MIGRATIONS, busy_seconds=NOTING_BUSY_SECONDS)
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._ended_sessions: set[str] = set()
        self._change: int | None = None
        self._looked = -LOOK_SECONDS
        self._noted: dict[str, float] = {}

    def find(self, text: str) -> Token:
        """The token that a caller shows. Raises TokenInvalidError, StateUnusableError."""
        found = FORM.fullmatch(text)
        if found is None:
            raise TokenInvalidError("What was shown is not a token of this service.", hint=HOW)
        token = self._row(found[1])
        if token is None or not hmac.compare_digest(token.hash, _hash(text)):
            raise TokenInvalidError("The token is not known here.", hint=HOW)
        return self._checked(token)

    def by_session(self, session_id: str, token_id: str, created: float) -> Token:
        """The token that somebody signed in with. Raises TokenInvalidError, StateUnusableError."""
        token = self._row(token_id)
        if not session_id or session_id in self._ended_sessions:
            raise TokenInvalidError("You have signed out.", hint="Sign in again.")
        if token is None or token.created != created:
            raise TokenInvalidError("The token that you signed in with is not known here.", hint=HOW)
        return self._checked(token)

    def end_session(self, session_id: str, lifetime_seconds: float) -> None:
        """Let nobody in with this session any more, in all processes. Raises StateUnusableError."""
        now = self._now()
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM ended_sessions WHERE until < ?", (now,))
            values = (session_id, now + lifetime_seconds)
            connection.execute("INSERT OR REPLACE INTO ended_sessions VALUES (?, ?)", values)
            _note_change(connection)
        self._ended_sessions.add(session_id)

    def _checked(self, token: Token) -> Token:
        # The secret was right, so its owner may know what became of it.
        state = token.state(self._now())
        if state != "valid":
            word = Text("has expired") if state == "expired" else Text("was revoked")
            raise TokenInvalidError(
                "The token %(id)s (%(name)s) %(state)s.", hint=HOW, id=token.id, name=token.name, state=word
            )
        self._note_use(token)
        return token

    def _row(self, token_id: str) -> Token | None:
        age = self._clock() - self._looked
        if age >= LOOK_SECONDS or (age >= LOOK_AGAIN_SECONDS and token_id not in self._tokens):
            try:
                self._look(self._looked)
            except StateUnusableError as error:
                # Whoever holds the file keeps revocations out of it as well: what is known is as new as can be.
                if not is_locked(error.__cause__) or token_id not in self._tokens:
                    raise
                self._looked = self._clock()
        return self._tokens.get(token_id)

    def _look(self, before: float) -> None:
        with self._lock:
            if self._looked != before:
                return  # another thread was faster
            with self._database.reading() as connection:
                change = int(connection.execute("SELECT number FROM changes").fetchone()[0])
                if change != self._change:
                    rows = map(_token, connection.execute("SELECT * FROM tokens"))
                    self._tokens = {each.id: each for each in rows}
                    self._ended_sessions = {row[0] for row in connection.execute("SELECT id FROM ended_sessions")}
                    self._change = change
            self._looked = self._clock()

    def _note_use(self, token: Token) -> None:
        """Write down when it was last used, at most once a minute; a request never fails for that."""
        clock = self._clock()
        if clock - self._noted.get(token.id, -LAST_USED_SECONDS) < LAST_USED_SECONDS or token.is_internal:
            return
        self._noted[token.id] = clock
        with contextlib.suppress(StateUnusableError), self._database.transaction() as connection:
            connection.execute("UPDATE tokens SET last_used = ? WHERE id = ?", (self._now(), token.id))


HOW = gettext_noop("Ask the operator of this service for a token.")


def _check(name: str, scopes: frozenset[str]) -> None:
    if not NAME.fullmatch(name):
        raise TokenError(
            "%(name)s cannot be a name.",
            hint="1 to 64 of letters, digits and . _ @ -, the first a letter or digit.",
            name=repr(name),
        )
    if not scopes or scopes - set(SCOPES):
        wrong = ", ".join(sorted(scopes - set(SCOPES))) or "none"
        raise TokenError(
            "The scopes are %(reason)s.", hint="Some of %(scopes)s.", reason=wrong, scopes=", ".join(SCOPES)
        )


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _token(row: Any) -> Token:
    found = dict(row)
    return Token(**{**found, "scopes": frozenset(found["scopes"].split()), "is_internal": bool(found["is_internal"])})


def _note_change(connection: Any) -> None:
    connection.execute("UPDATE changes SET number = number + 1")
