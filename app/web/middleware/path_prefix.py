"""The path below which callers find us, such as /vision of a proxy: all that names an address begins with it."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask

from app.config import Settings

KEY = "HTTP_X_FORWARDED_PREFIX"


class Forwarded:
    """WSGI middleware under Apache, which lets this header pass from TRUSTED_PROXIES only (proxies.conf there)."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as if mounted there."""
        if KEY in environ:
            environ["SCRIPT_NAME"] = environ[KEY]
        return self._application(environ, start_response)


class Mounted:
    """WSGI middleware for other servers: PATH_PREFIX, whether or not the proxy takes it out of the address."""

    def __init__(self, application: WSGIApplication, prefix: str) -> None:
        self._application = application
        self._prefix = prefix

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as if mounted there."""
        path = environ.get("PATH_INFO", "")
        if f"{path}/".startswith(f"{self._prefix}/"):
            environ["PATH_INFO"] = path[len(self._prefix) :] or "/"
        environ["SCRIPT_NAME"] = self._prefix
        return self._application(environ, start_response)


def init_app(app: Flask, settings: Settings) -> None:
    """In front of everything else. Without a prefix nothing is there."""
    if app.extensions.get("is_under_apache"):
        app.wsgi_app = Forwarded(app.wsgi_app)  # type: ignore[method-assign]
    elif settings.path_prefix:
        app.wsgi_app = Mounted(app.wsgi_app, settings.path_prefix)  # type: ignore[method-assign]
