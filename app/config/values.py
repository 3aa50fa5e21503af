"""Kinds of values that settings have, each checked and brought into one form. A leaf."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo

from app.inference.results import NAME

# In ADMIN_NETWORKS: the address by which the machine that a container runs on calls it; see
# app.web.middleware.internal_networks.
CONTAINER_HOST = "container-host"
HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
MODEL_NAME = re.compile(f"{NAME}(@{NAME})?")
# Becomes the name of a package, and part of the names of settings.
PLUGIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
RATE_LIMIT = re.compile(r"[1-9][0-9]{0,8}/(second|minute|hour|day)")
# No part of it begins with a dot, so none is `..`.
PATH_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
UPSTREAM_NAME = re.compile(NAME)
MEMORY_SIZE = re.compile(r"[1-9][0-9]*[bkmg]?")
SECRET_MIN_CHARACTERS = 16
# Linux holds a socket's path in 108 bytes; some room is left for a suffix such as `.new` while it is replaced.
SOCKET_PATH_MAX_BYTES = 99
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,2})?")


def _under_root(path: Path | None, info: ValidationInfo) -> Path | None:
    return None if path is None else Path(os.path.normpath(info.data["root"] / path))


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def match(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(value)
        return value

    return match


def _address_or_host(value: str) -> str:
    # As in a URL, an IPv6 address may stand in brackets.
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") and ":" in value else value
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        _matching(HOST_NAME)(value)
    return bare


def in_url(host: str) -> str:
    """A host as it stands where a port may follow: an IPv6 address needs brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


def _network_or_host(value: str) -> str:
    return value if value == CONTAINER_HOST else _network(value)


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":") if value.count(":") == 1 else (value, "", "")
    _address_or_host(host)
    if ":" in value and value.count(":") == 1 and not (port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(value)
    return value.lower()


def _base_url(value: str) -> str:
    url = urlsplit(value)
    base = f"{url.scheme}://{url.netloc}"
    if url.scheme not in ("http", "https") or value.removesuffix("/") != base or "@" in base or url.port == 0:
        raise ValueError(value)
    _address_or_host(url.hostname or "")
    return base


def _prefixed_url(value: str) -> str:
    """A base URL that may end in a path, below which a proxy serves everything."""
    base, path = _split_path(value)
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", path):
        raise ValueError(value)
    return _base_url(base) + path


def _split_path(value: str) -> tuple[str, str]:
    url = urlsplit(value)
    path = url.path.rstrip("/")
    return value.removesuffix("/").removesuffix(path) if path else value, path


def _http_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    url = urlsplit(text)
    if text and (url.scheme not in ("http", "https") or not url.hostname or url.port == 0 or url.fragment):
        raise ValueError
    return value


def _upstream(value: str) -> str:
    name, equals, url = value.partition("=")
    if not equals or not UPSTREAM_NAME.fullmatch(name):
        raise ValueError(value)
    return f"{name}={_base_url(url)}"


def _origin(value: str) -> str:
    return value if value == "all" else _base_url(value)


def _redis_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        return value
    url = urlsplit(text)
    database = url.path.strip("/")
    if url.scheme not in ("redis", "rediss") or not (database.isdecimal() or not database) or url.query or url.fragment:
        raise ValueError
    if url.port == 0:  # asking for it refuses what is no port
        raise ValueError
    _address_or_host(url.hostname or "")
    return value


class Expected(str):
    """In the annotation of a setting: what a right value is, in words that follow 'expected'."""


T = TypeVar("T")
Listed = Annotated[tuple[T, ...], BeforeValidator(_split)]

RootedPath = Annotated[Path, AfterValidator(_under_root), Expected("the path of a folder")]
OptionalPath = Annotated[Path | None, AfterValidator(_under_root), Expected("the path of a file")]
Host = Annotated[str, AfterValidator(_address_or_host), Expected("an address or a host name")]
Hosts = Annotated[Listed[Host], Expected("host names or addresses, with commas between")]
WebhookHosts = Annotated[
    Listed[Annotated[str, AfterValidator(_host_and_port)]],
    Expected("host names or addresses, each with or without :port, with commas between"),
]
Networks = Annotated[
    Listed[Annotated[str, AfterValidator(_network)]],
    Expected("addresses or networks such as 10.0.0.0/8, with commas between"),
]
NetworksOrHost = Annotated[
    Listed[Annotated[str, AfterValidator(_network_or_host)]],
    Expected("addresses or networks such as 10.0.0.0/8, or container-host, with commas between"),
]
ModelNames = Annotated[
    Listed[Annotated[str, AfterValidator(_matching(MODEL_NAME))]], Expected("name or name@version, with commas between")
]
PluginNames = Annotated[
    Listed[Annotated[str, AfterValidator(_matching(PLUGIN_NAME))]], Expected("names with commas between")
]
ImageFormats = Annotated[
    Listed[Literal["jpeg", "png", "webp", "bmp", "gif", "tiff"]],
    Expected("some of jpeg, png, webp, bmp, gif, tiff, with commas between"),
]
MemorySize = Annotated[str, AfterValidator(_matching(MEMORY_SIZE)), Expected("a size such as 512m or 2g")]
PrefixedUrl = Annotated[
    str, AfterValidator(_prefixed_url), Expected("an address such as http://127.0.0.1:8000 or https://box.example/cask")
]
SecretUrl = Annotated[SecretStr, AfterValidator(_http_url)]
Origins = Annotated[
    Listed[Annotated[str, AfterValidator(_origin)]],
    Expected("origins such as https://app.example, with commas between, or all"),
]
RateLimits = Annotated[
    Listed[Annotated[str, AfterValidator(_matching(RATE_LIMIT))]],
    Expected("limits such as 600/minute or 20/second,10000/day: so many a second, minute, hour or day"),
]
Upstreams = Annotated[
    Listed[Annotated[str, AfterValidator(_upstream)]],
    Expected("name=address, such as north=https://north.example:8443, with commas between"),
]
RedisUrl = Annotated[
    SecretStr,
    AfterValidator(_redis_url),
    Expected("an address such as redis://localhost:6379/0, or rediss://user:password@host:6379/0 with TLS"),
]
PathPrefix = Annotated[
    str,
    AfterValidator(lambda value: value and _matching(PATH_PREFIX)(value)),
    Expected("a path such as /vision, without a slash at the end"),
]
DeviceName = Annotated[str, AfterValidator(_matching(DEVICE)), Expected("auto, cpu, cuda or cuda:0, cuda:1 and so on")]
