"""API tokens: who may ask, and for what. Kept as hashes, on disk or in Redis, and compared in RAM. A leaf.

A token is ``cask_<id>_<secret>``. The id finds its row and may be shown; of the whole only the SHA-256 is kept, which
is enough for a secret of 192 random bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from app.auth.disk_rows import FILE_NAME as FILE_NAME
from app.auth.disk_rows import MIGRATIONS as MIGRATIONS
from app.auth.disk_rows import DiskRows
from app.auth.rows import NAME, Change, TokenRows
from app.auth.rows import SCOPES as SCOPES
from app.auth.rows import Token as Token
from app.errors import StateUnusableError, TokenError, TokenInvalidError
from app.texts import Text, gettext_noop

FORM = re.compile(r"cask_([0-9a-f]{8})_[0-9a-f]{48}")
# So old a look at the store is good enough: a revocation works in all processes within this time.
LOOK_SECONDS = 0.5
LAST_USED_SECONDS = 60.0


class TokenStore:
    """The tokens as an operator changes them. Raises StateUnusableError where the store cannot be used.

    ``rows``: where they are kept; a folder stands for the file in it.
    """

    def __init__(self, rows: Path | TokenRows, now: Callable[[], float] = time.time) -> None:
        self.rows = DiskRows(rows, is_durable=True) if isinstance(rows, Path) else rows
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

        def add(found: list[Token]) -> Change:
            if not is_internal and any(each.name == name and _is_valid(each, now) for each in found):
                raise TokenError(
                    "There is a valid token of the name %(name)s.",
                    hint="Choose another name, or revoke that one: flask token revoke %(plain)s",
                    name=repr(name),
                    plain=name,
                )
            return Change((token,), tuple(each.id for each in found if each.is_internal and each.state(now) != "valid"))

        self.rows.change(add)
        return token, text

    def revoke(self, known_as: str) -> Token:
        """End the valid token of this id or name. Raises TokenError when there is none."""
        now = self._now()
        ended: list[Token] = []

        def end(found: list[Token]) -> Change:
            ended[:] = [each for each in found if known_as in (each.id, each.name) and _is_valid(each, now)][:1]
            if not ended:
                raise TokenError(
                    "There is no valid token of the id or name %(name)s.",
                    hint="flask token list shows them.",
                    name=repr(known_as),
                )
            return Change((replace(ended[0], revoked=now),))

        self.rows.change(end)
        return ended[0]

    def discard(self, token: Token) -> None:
        """Forget an internal token that is no longer needed."""
        self.rows.change(lambda _: Change(removed=(token.id,)))

    def all(self) -> list[Token]:
        """Every token that people made, the newest last."""
        return [each for each in self.rows.all() if not each.is_internal]

    def is_any_valid(self) -> bool:
        """Whether anybody could come in."""
        now = self._now()
        return any(each.state(now) == "valid" for each in self.all())

    def close(self) -> None:
        """Close the connections that no thread uses."""
        self.rows.close()


class TokenTable:
    """All tokens in RAM, as old as ``LOOK_SECONDS`` at most. Thread-safe.

    ``rows``: where they are kept; a folder stands for the file in it. ``clock`` counts seconds for looking again,
    ``now`` is the time of day, for what expires. ``note_unchecked`` hears «accepted» or «refused» of each request that
    came while the store could not be asked.
    """

    def __init__(
        self,
        rows: Path | TokenRows,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        note_unchecked: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self.rows = DiskRows(rows, is_durable=False) if isinstance(rows, Path) else rows
        self._clock = clock
        self._now = now
        self._note_unchecked = note_unchecked
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._ended_sessions: set[str] = set()
        self._mark: str | None = None
        # When the last look began that was tried, and the last one that went well.
        self._looked = -LOOK_SECONDS
        self._seen = -LOOK_SECONDS
        self._is_unchecked = False
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
        self.rows.end_session(session_id, now + lifetime_seconds, now)
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
        now = self._clock()
        # A token that is not known may have been made a moment ago, so only a look that begins now can tell.
        oldest = now - LOOK_SECONDS if token_id in self._tokens else now
        if self._looked <= oldest:
            try:
                self._look(oldest)
            except StateUnusableError as error:
                self._go_on_without(error, token_id)
        if self._is_unchecked:
            self._note_unchecked("accepted")
        return self._tokens.get(token_id)

    def _go_on_without(self, error: StateUnusableError, token_id: str) -> None:
        """Believe what was read before, for a while. Raises the error where that does not do."""
        self._is_unchecked = True
        is_known = token_id in self._tokens
        if not is_known or self._clock() - self._seen > self.rows.grace_seconds(error):
            self._note_unchecked("refused")
            raise error
        self._looked = self._clock()

    def _look(self, oldest: float) -> None:
        """Read the store, unless another thread began to while this one waited: so a flood of wrong tokens shares
        its looks, one at a time.
        """
        with self._lock:
            if self._seen > oldest:
                return
            began = self._clock()
            found = self.rows.look(self._mark)
            if found is not None:
                self._tokens, self._ended_sessions = found.tokens, set(found.ended_sessions)
                self._mark = found.mark
            self._looked = self._seen = began
            self._is_unchecked = False

    def _note_use(self, token: Token) -> None:
        """Write down when it was last used, at most once a minute; a request never fails for that."""
        clock = self._clock()
        if clock - self._noted.get(token.id, -LAST_USED_SECONDS) < LAST_USED_SECONDS or token.is_internal:
            return
        self._noted[token.id] = clock
        with contextlib.suppress(StateUnusableError):
            self.rows.note_use(token.id, self._now())


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


def _is_valid(token: Token, now: float) -> bool:
    """Whether people made it and may use it."""
    return not token.is_internal and token.state(now) == "valid"
