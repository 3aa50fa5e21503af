"""Sessions in a signed cookie, for those who bring one; for all others they cost nothing."""

from __future__ import annotations

from datetime import timedelta

from flask import Flask, Request
from flask import request as current_request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

# A shift: whoever comes back tomorrow shows the token again.
LIFETIME = timedelta(hours=12)


class CookieSessions(SecureCookieSessionInterface):
    """Flask's own, without preparing the signature's check when there is no signature to check."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """The caller's session; a new and empty one when the request has no such cookie."""
        if self.get_cookie_name(app) not in request.cookies:
            return self.session_class()
        return super().open_session(app, request)

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
