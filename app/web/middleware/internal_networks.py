"""Who asks from inside: from ADMIN_NETWORKS, and not through a proxy."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from flask import current_app, request

from app import config
from app.config import CONTAINER_HOST, Settings
from app.host import machine

# Through a proxy on this machine everybody would be local.
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_BY", "HTTP_FORWARDED")
MAX_ADDRESSES = 1024
MAX_SETTINGS = 8


def is_inside() -> bool:
    """Whether the caller of the current request may be told about the inside."""
    return is_from(networks(current_app.extensions["settings"]))


def is_from(networks: tuple[str, ...]) -> bool:
    """Whether the caller of the current request has an address of these, and comes through no proxy."""
    if any(name in request.environ for name in FORWARDED):
        return False
    return _is_among(request.environ.get("REMOTE_ADDR", ""), networks)


@lru_cache(MAX_SETTINGS)
def _named(values: tuple[str, ...]) -> tuple[str, ...]:
    gateway = config.host_address() or machine.container_gateway()
    host = (gateway,) if gateway else ()
    return tuple(each for value in values for each in (host if value == CONTAINER_HOST else (value,)))


def networks(settings: Settings) -> tuple[str, ...]:
    """ADMIN_NETWORKS, with the address of the container's host instead of its name; without, where this is none."""
    return _named(settings.admin_networks)


@lru_cache(MAX_ADDRESSES)
def _is_among(address: str, networks: tuple[str, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in ipaddress.ip_network(network) for network in networks)
