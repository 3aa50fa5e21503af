"""Which Host names we answer to. A forged one would end in links and caches; health checks may use any."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable

from flask import Flask, request
from werkzeug.sansio.utils import host_is_trusted

from app.config import Settings
from app.errors import RequestError
from app.web import policy

# Hosts that were judged of late; a caller may send any number of others.
MAX_REMEMBERED = 64


class HostError(RequestError):
    """The Host header names a host that is not ours."""

    code = "host_unknown"
    title = "The host name is not one of ours"


def init_app(app: Flask, settings: Settings) -> None:
    """Refuse other hosts than SERVER_NAME and SERVER_ALIASES."""
    accepts = acceptance(settings)

    @app.before_request
    def refuse_other_hosts() -> None:
        # Load balancers and orchestrators ask for health by address.
        is_own_only = policy.of(app, request.endpoint).is_own_host_only
        if is_own_only and not accepts(request.host.lower()):
            raise HostError(
                "This service does not answer to the host %(name)s.",
                hint="Call it by the name that the operator of this service gave you.",
                name=repr(request.host[:80]),
            )


def acceptance(settings: Settings) -> Callable[[str], bool]:
    """Says whether a host, in small letters and perhaps with a port, is one of SERVER_NAME and SERVER_ALIASES."""
    accepted = [name.lower() for name in settings.server_names]
    return functools.lru_cache(MAX_REMEMBERED)(lambda host: _is_accepted(host, accepted))


def _is_accepted(host: str, accepted: list[str]) -> bool:
    if not host.startswith("["):
        # A dot at the end says that the name is a whole one (RFC 1034, section 3.1).
        name, colon, port = host.partition(":")
        return host_is_trusted(name.removesuffix(".") + colon + port, accepted)
    # werkzeug takes the first colon for that of the port; and one IPv6 address can be written in many ways.
    address, _, port = host[1:].partition("]")
    try:
        asked = ipaddress.IPv6Address(address)
    except ValueError:
        return False
    is_port = not port or (port[0] == ":" and port[1:].isdecimal())
    return is_port and any(":" in name and ipaddress.IPv6Address(name) == asked for name in accepted)
