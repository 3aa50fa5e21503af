"""Sessions in a signed cookie, for those who bring one; for all others they cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from flask import Flask, Request
from flask import request as current_request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import BadSignature

# One shift; the next day people sign in again.
LIFETIME = timedelta(hours=12)


# A browser sends one for each path that it was set for, such as those of before and behind a proxy.
MOST_COOKIES = 8


class CallersSession(SecureCookieSession):
    """One session, and those of further cookies of the name: ``others`` are signed by us too."""

    others: Sequence[SecureCookieSession] = ()


class CookieSessions(SecureCookieSessionInterface):
    """Flask's own, without preparing the signature's check when there is no signature to check."""

    session_class = CallersSession

    def open_session(self, app: Flask, request: Request) -> CallersSession | None:
        """The caller's session; a new and empty one when the request has no such cookie."""
        values = request.cookies.getlist(self.get_cookie_name(app))[:MOST_COOKIES]
        serializer = self.get_signing_serializer(app) if values else None
        if serializer is None:
            return CallersSession()
        sessions = []
        for value in values:
            with suppress(BadSignature):
                sessions.append(CallersSession(serializer.loads(value, max_age=int(LIFETIME.total_seconds()))))
        first, *others = sessions or [CallersSession()]
        first.others = others
        return first

    def get_cookie_path(self, app: Flask) -> str:
        """Ours alone where a proxy offers other services beside us."""
        return current_request.script_root or "/"

    def get_cookie_secure(self, app: Flask) -> bool:
        """For HTTPS only where the caller came by HTTPS, also by way of a proxy that we trust."""
        return current_request.is_secure


def init_app(app: Flask) -> None:
    """Use them in this app."""
    app.session_interface = CookieSessions()
    app.config.update(
        SESSION_COOKIE_NAME="cask_session",
        SESSION_COOKIE_HTTPONLY=True,
        # With a link from elsewhere a person is still signed in; with a form from elsewhere not.
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=LIFETIME,
        SESSION_REFRESH_EACH_REQUEST=False,
    )
