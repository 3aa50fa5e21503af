"""Sessions in a signed cookie, for those who bring one; for all others they cost nothing."""

from __future__ import annotations

from flask import Flask, Request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface


class CookieSessions(SecureCookieSessionInterface):
    """Flask's own, without preparing the signature's check when there is no signature to check."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """The caller's session; a new and empty one when the request has no such cookie."""
        if self.get_cookie_name(app) not in request.cookies:
            return self.session_class()
        return super().open_session(app, request)


def init_app(app: Flask) -> None:
    """Use them in this app."""
    app.session_interface = CookieSessions()
