"""Who asks, and may they: an API token in X-Api-Token or Authorization, or the session of somebody who signed in.

Two steps: ``identify`` finds out who it is and refuses nobody, so that what stands between can count all callers alike;
``authorize`` refuses.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from flask import Flask, current_app, g, redirect, request, session, url_for
from flask.sessions import SessionMixin
from werkzeug.wrappers import Response

from app import errors
from app.auth import stores
from app.auth.tokens import Token, TokenTable
from app.config import Settings
from app.errors import CaskError
from app.telemetry import metrics
from app.web import policy
from app.web.middleware import internal_networks, origins
from app.web.middleware.sessions import LIFETIME
from app.web.policy import Access

HEADER = "X-Api-Token"
TOKEN_KEY = "HTTP_X_API_TOKEN"  # noqa: S105 - the name of a header
AUTHORIZATION_KEY = "HTTP_AUTHORIZATION"
SCHEME = "bearer "
SESSION, SESSION_ID, SESSION_CREATED = "session", "token", "created"
EXTENSION = "token_table"
ANY = "any"


def init_app(app: Flask, settings: Settings) -> None:
    """Make the table of tokens where they are needed. The package puts ``identify`` and ``authorize`` in place."""
    if settings.authentication == "required":
        app.extensions[EXTENSION] = stores.table(
            settings, lambda outcome: metrics.TOKENS_UNCHECKED.add(outcome=outcome)
        )


def identify() -> None:
    """Note who asks: ``g.token``, or ``g.token_error`` for what is wrong with what was shown."""
    g.token, g.token_error, g.is_session = None, None, False
    table: TokenTable | None = current_app.extensions.get(EXTENSION)
    if table is None:
        return
    try:
        g.token = _shown_token(table)
    except CaskError as error:
        g.token_error = error


def authorize() -> Response | None:
    """Let the request pass, send a person to the way in, or raise why not."""
    here = policy.of(current_app, request.endpoint)
    if (g.is_session or here.is_form) and origins.is_forged():
        raise errors.ForeignFormError(
            "This form was sent by a page of another site.", hint="Open this service's own page and send it from there."
        )
    # What does not exist needs no token; the browser's question before a request from another origin brings none.
    if not here.needs_token or request.method == "OPTIONS":
        return None
    if here.access is Access.ADMIN and not internal_networks.is_inside():
        raise errors.OutsideError(
            "This address is for operators and not answered from here.",
            hint="Ask the operator of this service from which networks it is.",
        )
    scope = "admin" if here.access is Access.ADMIN else "predict"
    return demand(ANY if here.access is Access.ANY_TOKEN else scope)


def demand(scope: str) -> Response | None:
    """As ``authorize``, of an address that needs a token with this scope; ``any``: with whichever."""
    if EXTENSION not in current_app.extensions:
        return None
    if g.token is None:
        return _refuse()
    if scope not in g.token.scopes and scope != ANY:
        raise errors.ScopeMissingError(
            "The token %(id)s (%(name)s) has not the scope %(scope)s.",
            hint="Ask the operator of this service for a token with the scope %(scope)s.",
            id=g.token.id,
            name=g.token.name,
            scope=scope,
        )
    return None


def caller() -> Token | None:
    """Whose token came with the current request; None for nobody's, or where tokens are not asked for."""
    token: Token | None = g.get("token")
    return token


def is_session() -> bool:
    """Whether the caller is known by a session, as somebody who signed in."""
    return bool(g.get("is_session"))


def is_required() -> bool:
    """Whether callers must show a token here."""
    return EXTENSION in current_app.extensions


def find(text: str) -> Token:
    """The token of this text. Raises TokenInvalidError, StateUnusableError."""
    table: TokenTable = current_app.extensions[EXTENSION]
    return table.find(text)


def remember(token: Token) -> None:
    """Let the caller's session stand for this token."""
    session.permanent = True  # for some hours, see sessions
    session[SESSION_ID], session[SESSION_CREATED] = token.id, token.created
    session[SESSION] = secrets.token_hex(16)


def forget() -> None:
    """End the caller's session, and every copy of its cookie. Raises StateUnusableError."""
    known: TokenTable | None = current_app.extensions.get(EXTENSION)
    for each in _shown_sessions():
        if known is not None and each.get(SESSION):
            known.end_session(str(each[SESSION]), LIFETIME.total_seconds())
    session.clear()


def is_internal_network() -> bool:
    """Whether the caller may be told what is wrong inside: from inside, or with an admin's token."""
    token = caller()
    return internal_networks.is_inside() or (token is not None and "admin" in token.scopes)


def _shown_token(table: TokenTable) -> Token | None:
    """The valid token of the current request, None where none came. Raises TokenInvalidError, StateUnusableError."""
    text = shown_text(request.environ)
    if text:
        return table.find(text)
    # The cookie first: reading a session makes the answer vary by cookies.
    if "HTTP_COOKIE" in request.environ:
        return _token_of_session(table)
    return None


def shown_text(environ: Mapping[str, Any]) -> str:
    """What stands where a token is looked for; empty for nothing."""
    text: str = environ.get(TOKEN_KEY, "")
    if not text:
        authorization: str = environ.get(AUTHORIZATION_KEY, "")
        if authorization[: len(SCHEME)].lower() == SCHEME:
            text = authorization[len(SCHEME) :].strip()
    return text


def _token_of_session(table: TokenTable) -> Token | None:
    """Of the first session that lives; None where none came. Raises what is wrong with the last."""
    error: errors.TokenInvalidError | None = None
    for each in _shown_sessions():
        if SESSION_ID not in each:
            continue
        g.is_session = True
        try:
            values = (str(each.get(SESSION, "")), str(each[SESSION_ID]))
            return table.by_session(*values, float(each.get(SESSION_CREATED, 0.0)))
        except errors.TokenInvalidError as invalid:
            error = invalid
    if error is not None:
        raise error
    return None


def _shown_sessions() -> tuple[SessionMixin, ...]:
    """All that came with the current request; see sessions."""
    return session, *getattr(session, "others", ())


def _refuse() -> Response:
    if g.token_error is not None and not isinstance(g.token_error, errors.TokenInvalidError):
        raise g.token_error
    if _is_person():
        requested = f"{request.script_root}{request.full_path}".rstrip("?") if request.method == "GET" else None
        return redirect(url_for("pages.sign_in", next=requested), 303)
    raise g.token_error or errors.TokenMissingError(
        "This address answers only those who show a token.",
        hint="Send it as %(header)s: cask_… or Authorization: Bearer cask_…; ask the operator of this service for one.",
        header=HEADER,
    )


def _is_person() -> bool:
    """Whether a browser goes to a page: it can be sent elsewhere."""
    return "text/html" in request.headers.get("Accept", "") and TOKEN_KEY not in request.environ
