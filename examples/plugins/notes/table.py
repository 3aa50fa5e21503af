"""The table of notes. Several processes share the file: each question opens it, and waits for the others."""

import sqlite3
from contextlib import closing

TABLE = (
    "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP, text TEXT NOT NULL)"
)


def latest(database: str, count: int) -> list[tuple[str, str]]:
    """(when, text) of the newest notes."""
    with closing(_opened(database)) as connection:
        return connection.execute("SELECT at, text FROM notes ORDER BY id DESC LIMIT ?", (count,)).fetchall()


def add(database: str, text: str) -> None:
    with closing(_opened(database)) as connection, connection:
        connection.execute("INSERT INTO notes (text) VALUES (?)", (text,))


def _opened(database: str) -> sqlite3.Connection:
    connection = sqlite3.connect(database, timeout=5)
    connection.execute(TABLE)
    return connection
