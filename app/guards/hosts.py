"""Which Host names we answer to. A forged one would end in links and caches; health checks may use any."""

from __future__ import annotations

from flask import Flask, request
from werkzeug.sansio.utils import host_is_trusted

from app.config import Settings
from app.errors import RequestError


class HostError(RequestError):
    """The Host header names a host that is not ours."""

    code = "host_unknown"
    title = "The host name is not one of ours"


def init_app(app: Flask, settings: Settings) -> None:
    """Refuse other hosts than SERVER_NAME and SERVER_ALIASES."""
    accepted = [name.lower() for name in (settings.server_name, *settings.server_aliases)]

    @app.before_request
    def refuse_other_hosts() -> None:
        # Load balancers and orchestrators ask for health by address.
        if request.blueprint != "ops" and not host_is_trusted(request.host.lower(), accepted):
            raise HostError(
                f"This service does not answer to the host {request.host[:80]!r}.",
                hint="Call it by SERVER_NAME, or add the name to SERVER_ALIASES.",
            )
