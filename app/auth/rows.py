"""What is kept of a token, and what a store of tokens can do, on disk or in Redis. A leaf."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

SCOPES = ("predict", "admin")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
ID = re.compile(r"[0-9a-f]{8}")
HASH_BYTES = 32


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


@dataclass(frozen=True, slots=True)
class Change:
    """Tokens to write, and the ids of those to remove."""

    written: tuple[Token, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All tokens and ended sessions at one moment. ``mark`` is another after each change."""

    mark: str
    tokens: dict[str, Token]
    ended_sessions: frozenset[str]


class TokenRows(Protocol):
    """Where tokens are kept. All of it raises StateUnusableError."""

    def change(self, decide: Callable[[list[Token]], Change]) -> None:
        """Do what ``decide`` says of all tokens, while nobody else changes them; what it raises changes nothing."""

    def all(self) -> list[Token]:
        """Every token, internal ones too, the newest last."""

    def look(self, mark: str | None) -> Snapshot | None:
        """What there is; None where nothing changed since ``mark``."""

    def end_session(self, session_id: str, until: float, now: float) -> None:
        """Remember until then that a session was ended."""

    def note_use(self, token_id: str, moment: float) -> None:
        """Write down when a token was last used."""

    def grace_seconds(self, error: BaseException) -> float:
        """How long tokens that were read before this failure may be believed."""

    def close(self) -> None:
        """Close the connections that no thread uses."""


def document(token: Token) -> dict[str, Any]:
    """A token as JSON has it, without when it was last used."""
    return {
        "id": token.id,
        "name": token.name,
        "hash": token.hash.hex(),
        "scopes": sorted(token.scopes),
        "created": token.created,
        "expires": token.expires,
        "revoked": token.revoked,
        "is_internal": token.is_internal,
    }


def of_document(found: Any, last_used: float | None = None) -> Token:
    """The token of such JSON. Raises ValueError with what is wrong."""
    if not isinstance(found, Mapping):
        raise ValueError("it is not an object")  # noqa: TRY004 - it is data
    try:
        known_as, name, scopes = str(found["id"]), str(found["name"]), _scopes(found["scopes"])
        secret = bytes.fromhex(found["hash"])
        moments = {key: _moment(found, key) for key in ("created", "expires", "revoked")}
    except KeyError as error:
        raise ValueError(f"{error} is missing") from None
    except TypeError:
        raise ValueError("hash is not a text") from None
    if not ID.fullmatch(known_as) or not NAME.fullmatch(name) or len(secret) != HASH_BYTES:
        raise ValueError("id, name or hash has not the form of a token")
    if moments["created"] is None:
        raise ValueError("created is not a number")
    return Token(
        known_as,
        name,
        secret,
        scopes,
        moments["created"],
        moments["expires"],
        moments["revoked"],
        last_used,
        is_internal=found.get("is_internal") is True,
    )


def _scopes(found: Any) -> frozenset[str]:
    if not isinstance(found, list) or not found or not all(each in SCOPES for each in found):
        raise ValueError(f"scopes are {found!r}, expected some of {', '.join(SCOPES)}")
    return frozenset(found)


def _moment(found: Mapping[str, Any], key: str) -> float | None:
    value = found[key]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} is {value!r}, expected seconds since 1970")
    return float(value)


def oldest_first(tokens: Iterable[Token]) -> list[Token]:
    """In the order in which they were made."""
    return sorted(tokens, key=lambda each: each.created)
