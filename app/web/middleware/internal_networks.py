"""Who asks from inside: from ADMIN_NETWORKS, and not through a proxy."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from flask import current_app, request

from app.host.networks import of_operators

# Through a proxy on this machine everybody would be local.
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_BY", "HTTP_FORWARDED")
MAX_ADDRESSES = 1024


def is_inside() -> bool:
    """Whether the caller of the current request may be told about the inside."""
    return is_from(of_operators(current_app.extensions["settings"]))


def is_from(networks: tuple[str, ...]) -> bool:
    """Whether the caller of the current request has an address of these, and comes through no proxy."""
    if any(name in request.environ for name in FORWARDED):
        return False
    return _is_among(request.environ.get("REMOTE_ADDR", ""), networks)


@lru_cache(MAX_ADDRESSES)
def _is_among(address: str, networks: tuple[str, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in ipaddress.ip_network(network) for network in networks)
