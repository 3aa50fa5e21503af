"""Kinds of values that settings have, each checked and brought into one form. A leaf."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

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


# As people write yes and no.
BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1", "t", "y"), True),
    **dict.fromkeys(("false", "no", "off", "0", "f", "n"), False),
}
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+(\.0+)?")
MASK = "**********"


class SecretStr:
    """A text that no printed form shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """The text in clear."""
        return self._text

    def __repr__(self) -> str:
        return f"SecretStr({str(self)!r})"

    def __str__(self) -> str:
        return MASK if self._text else ""

    def __len__(self) -> int:
        return len(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting's text becomes. ``read`` also gets the values of the settings before it; it raises ValueError.

    ``expected``: what a right value is, in words that follow 'expected'. ``choices``: the right words, where a value,
    or each part of a list, is one of a few.
    """

    read: Callable[[str, Mapping[str, Any]], Any]
    expected: str = ""
    choices: tuple[str, ...] = ()


def kind_of(annotation: Any) -> Kind:
    """The kind that a field's annotation means: one of those below, or one of Python's own."""
    if get_origin(annotation) is Annotated:
        return next(each for each in get_args(annotation)[1:] if isinstance(each, Kind))
    if get_origin(annotation) is Literal:
        return Kind(_plain(_one_of(get_args(annotation))), choices=get_args(annotation))
    return PLAIN[annotation]


def _plain(read: Callable[[str], Any]) -> Callable[[str, Mapping[str, Any]], Any]:
    return lambda text, before: read(text)


def _list(read: Callable[[str], str]) -> Callable[[str, Mapping[str, Any]], Any]:
    def split(text: str, before: Mapping[str, Any]) -> tuple[str, ...]:
        parts = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
        return tuple(read(part) for part in parts)

    return split


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return choose


def _boolean(text: str) -> bool:
    try:
        return BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _whole_number(text: str) -> int:
    """Python reads 1_0 as 10; nobody who sets that means it."""
    text = text.strip()
    if not WHOLE_NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text.partition(".")[0])


def _number(text: str) -> float:
    # Python also reads 1_0, and digits of other scripts.
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)


def _path(text: str, before: Mapping[str, Any]) -> Path:
    return Path(os.path.normpath(before["root"] / text))


def _optional_path(text: str, before: Mapping[str, Any]) -> Path | None:
    return _path(text, before) if text else None


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


def _http_url(text: str) -> SecretStr:
    url = urlsplit(text)
    if text and (url.scheme not in ("http", "https") or not url.hostname or url.port == 0 or url.fragment):
        raise ValueError
    return SecretStr(text)


def _upstream(value: str) -> str:
    name, equals, url = value.partition("=")
    if not equals or not UPSTREAM_NAME.fullmatch(name):
        raise ValueError(value)
    return f"{name}={_base_url(url)}"


def _origin(value: str) -> str:
    return value if value == "all" else _base_url(value)


def _redis_url(text: str) -> SecretStr:
    if not text:
        return SecretStr("")
    url = urlsplit(text)
    database = url.path.strip("/")
    if url.scheme not in ("redis", "rediss") or not (database.isdecimal() or not database) or url.query or url.fragment:
        raise ValueError
    if url.port == 0:  # asking for it refuses what is no port
        raise ValueError
    _address_or_host(url.hostname or "")
    return SecretStr(text)


PLAIN: Mapping[Any, Kind] = {
    str: Kind(_plain(str)),
    int: Kind(_plain(_whole_number)),
    float: Kind(_plain(_number)),
    bool: Kind(_plain(_boolean), choices=("true", "false")),
    SecretStr: Kind(_plain(SecretStr)),
}
IMAGE_FORMATS = ("jpeg", "png", "webp", "bmp", "gif", "tiff")

RootedPath = Annotated[Path, Kind(_path, "the path of a folder")]
OptionalPath = Annotated[Path | None, Kind(_optional_path, "the path of a file")]
Host = Annotated[str, Kind(_plain(_address_or_host), "an address or a host name")]
Hosts = Annotated[tuple[str, ...], Kind(_list(_address_or_host), "host names or addresses, with commas between")]
WebhookHosts = Annotated[
    tuple[str, ...],
    Kind(_list(_host_and_port), "host names or addresses, each with or without :port, with commas between"),
]
Networks = Annotated[
    tuple[str, ...], Kind(_list(_network), "addresses or networks such as 10.0.0.0/8, with commas between")
]
NetworksOrHost = Annotated[
    tuple[str, ...],
    Kind(_list(_network_or_host), "addresses or networks such as 10.0.0.0/8, or container-host, with commas between"),
]
ModelNames = Annotated[tuple[str, ...], Kind(_list(_matching(MODEL_NAME)), "name or name@version, with commas between")]
PluginNames = Annotated[tuple[str, ...], Kind(_list(_matching(PLUGIN_NAME)), "names with commas between")]
ImageFormats = Annotated[
    tuple[str, ...],
    Kind(
        _list(_one_of(IMAGE_FORMATS)),
        "some of jpeg, png, webp, bmp, gif, tiff, with commas between",
        choices=IMAGE_FORMATS,
    ),
]
MemorySize = Annotated[str, Kind(_plain(_matching(MEMORY_SIZE)), "a size such as 512m or 2g")]
PrefixedUrl = Annotated[
    str, Kind(_plain(_prefixed_url), "an address such as http://127.0.0.1:8000 or https://box.example/cask")
]
SecretUrl = Annotated[SecretStr, Kind(_plain(_http_url))]
Origins = Annotated[
    tuple[str, ...], Kind(_list(_origin), "origins such as https://app.example, with commas between, or all")
]
RateLimits = Annotated[
    tuple[str, ...],
    Kind(
        _list(_matching(RATE_LIMIT)),
        "limits such as 600/minute or 20/second,10000/day: so many a second, minute, hour or day",
    ),
]
Upstreams = Annotated[
    tuple[str, ...],
    Kind(_list(_upstream), "name=address, such as north=https://north.example:8443, with commas between"),
]
RedisUrl = Annotated[
    SecretStr,
    Kind(
        _plain(_redis_url),
        "an address such as redis://localhost:6379/0, or rediss://user:password@host:6379/0 with TLS",
    ),
]
PathPrefix = Annotated[
    str,
    Kind(
        _plain(lambda text: text and _matching(PATH_PREFIX)(text)), "a path such as /vision, without a slash at the end"
    ),
]
DeviceName = Annotated[str, Kind(_plain(_matching(DEVICE)), "auto, cpu, cuda or cuda:0, cuda:1 and so on")]
