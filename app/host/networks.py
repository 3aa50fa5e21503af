"""ADMIN_NETWORKS as addresses. Without Flask, as Apache is told them too."""

from __future__ import annotations

from functools import lru_cache

from app import config
from app.config import CONTAINER_HOST, Settings
from app.host import machine

MAX_SETTINGS = 8


@lru_cache(MAX_SETTINGS)
def _named(values: tuple[str, ...]) -> tuple[str, ...]:
    gateway = config.host_address() or machine.container_gateway()
    host = (gateway,) if gateway else ()
    return tuple(each for value in values for each in (host if value == CONTAINER_HOST else (value,)))


def of_operators(settings: Settings) -> tuple[str, ...]:
    """ADMIN_NETWORKS, with the address of the container's host instead of its name; without, where this is none."""
    return _named(settings.admin_networks)
