"""Tokens as a file: from one store into another, or to machines that share nothing. Hashes only, no secret. A leaf.

One JSON object a line. The first says how many tokens follow, so that a file that was cut off is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from app.auth.rows import Change, Token, document, of_document
from app.auth.tokens import TokenStore
from app.errors import TokenError

FORM, FORM_NUMBER = "cask_tokens", 1
HINT = "Export it anew, with flask token export; nothing was imported."


@dataclass(frozen=True)
class Outcome:
    """What an import did: how many tokens are new, how many ended here, how many were known so."""

    added: int
    revoked: int
    unchanged: int


def exported(tokens: Iterable[Token]) -> str:
    """The file."""
    rows = [document(each) for each in tokens]
    return "".join(f"{json.dumps(row)}\n" for row in ({FORM: FORM_NUMBER, "tokens": len(rows)}, *rows))


def imported(store: TokenStore, text: str, now: float) -> Outcome:
    """Take all tokens of a file into the store, or none. A revocation on either side holds; nothing is brought back.

    Raises TokenError that names the line, StateUnusableError.
    """
    given = _parsed(text)
    outcomes: list[Outcome] = []

    def merge(found: list[Token]) -> Change:
        known = {each.id: each for each in found}
        names = {each.name: each.id for each in found if not each.is_internal and each.state(now) == "valid"}
        merged = [_merged(line, token, known, names, now) for line, token in given]
        written = [token for token in merged if known.get(token.id) != token]
        added = sum(token.id not in known for token in written)
        outcomes[:] = [Outcome(added, len(written) - added, len(merged) - len(written))]
        return Change(tuple(written))

    store.rows.change(merge)
    return outcomes[0]


def _merged(line: int, token: Token, known: dict[str, Token], names: dict[str, str], now: float) -> Token:
    here = known.get(token.id)
    if here is None:
        holder = names.get(token.name, token.id)
        if holder != token.id and token.state(now) == "valid":
            reason = f"here another valid token ({holder}) has the name {token.name}"
            raise _wrong(line, reason, "Revoke one of the two.")
        return token
    if here.hash != token.hash:
        raise _wrong(line, f"here the id {token.id} is another token's", "Make one of the two anew.")
    moments = [moment for moment in (here.revoked, token.revoked) if moment is not None]
    return replace(here, revoked=min(moments, default=None))


def _parsed(text: str) -> list[tuple[int, Token]]:
    """Each token with the number of its line. Raises TokenError."""
    lines = text.splitlines()
    head = _json(1, lines[0] if lines else "")
    if not isinstance(head, dict) or head.get(FORM) != FORM_NUMBER:
        raise _wrong(1, f'it is no export of tokens of the form {FORM_NUMBER}, which begins with {{"{FORM}": 1')
    given = [(number, _token(number, line)) for number, line in enumerate(lines[1:], 2)]
    if head.get("tokens") != len(given):
        raise _wrong(len(lines), f"it has {len(given)} tokens, and its first line says {head.get('tokens')}")
    if repeated := [number for number, token in given if token.id in {each.id for n, each in given if n < number}]:
        raise _wrong(repeated[0], "its id stands in an earlier line too")
    return given


def _token(number: int, line: str) -> Token:
    try:
        token = of_document(_json(number, line))
    except ValueError as error:
        raise _wrong(number, str(error)) from None
    return replace(token, is_internal=False)


def _json(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise _wrong(number, "it is not JSON; the file may have been cut off") from None


def _wrong(number: int, reason: str, hint: str = HINT) -> TokenError:
    return TokenError("Line %(line)s: %(reason)s.", hint=hint, line=number, reason=reason)
