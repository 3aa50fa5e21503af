"""Tokens in one SQLite file below STATE_DIR. A leaf."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.auth.rows import Change, Snapshot, Token
from app.storage.sqlite import BUSY_SECONDS, Database, is_locked

FILE_NAME = "tokens.sqlite3"
# Noting a use does not wait for a writer.
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


class DiskRows:
    """As ``TokenRows``. ``is_durable``: for an operator's changes, which wait and survive the loss of power."""

    def __init__(self, state_dir: Path, *, is_durable: bool) -> None:
        busy_seconds = BUSY_SECONDS if is_durable else NOTING_BUSY_SECONDS
        path = state_dir / FILE_NAME
        self.database = Database(path, MIGRATIONS, is_durable=is_durable, busy_seconds=busy_seconds)

    def change(self, decide: Callable[[list[Token]], Change]) -> None:
        """As ``TokenRows``."""
        with self.database.transaction() as connection:
            change = decide([_token(row) for row in connection.execute("SELECT * FROM tokens ORDER BY created")])
            for known_as in change.removed:
                connection.execute("DELETE FROM tokens WHERE id = ?", (known_as,))
            for token in change.written:
                connection.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(token))
            if change.removed or change.written:
                _note_change(connection)

    def all(self) -> list[Token]:
        """As ``TokenRows``."""
        with self.database.reading() as connection:
            return [_token(row) for row in connection.execute("SELECT * FROM tokens ORDER BY created")]

    def look(self, mark: str | None) -> Snapshot | None:
        """As ``TokenRows``."""
        with self.database.reading() as connection:
            found = str(connection.execute("SELECT number FROM changes").fetchone()[0])
            if found == mark:
                return None
            tokens = map(_token, connection.execute("SELECT * FROM tokens"))
            ended = frozenset(row[0] for row in connection.execute("SELECT id FROM ended_sessions"))
            return Snapshot(found, {each.id: each for each in tokens}, ended)

    def end_session(self, session_id: str, until: float, now: float) -> None:
        """As ``TokenRows``."""
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM ended_sessions WHERE until < ?", (now,))
            connection.execute("INSERT OR REPLACE INTO ended_sessions VALUES (?, ?)", (session_id, until))
            _note_change(connection)

    def note_use(self, token_id: str, moment: float) -> None:
        """As ``TokenRows``."""
        with self.database.transaction() as connection:
            connection.execute("UPDATE tokens SET last_used = ? WHERE id = ?", (moment, token_id))

    def grace_seconds(self, error: BaseException) -> float:
        """While the file is locked no revocation can be written either, so what is known is current."""
        return float("inf") if is_locked(error.__cause__) else 0.0

    def close(self) -> None:
        """As ``TokenRows``."""
        self.database.close()


def _token(row: Any) -> Token:
    found = dict(row)
    return Token(**{**found, "scopes": frozenset(found["scopes"].split()), "is_internal": bool(found["is_internal"])})


def _row(token: Token) -> tuple[Any, ...]:
    scopes = " ".join(sorted(token.scopes))
    moments = (token.created, token.expires, token.revoked, token.last_used)
    return (token.id, token.name, token.hash, scopes, *moments, token.is_internal)


def _note_change(connection: Any) -> None:
    connection.execute("UPDATE changes SET number = number + 1")
