"""Who may be loaded, how hard, and on whose word: an allow-list, asked before the first packet."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loadtest.statuses import LoadTestError, RefusedError, UsageError

if TYPE_CHECKING:
    from app.config import Settings

DEFAULT_PORTS = {"http": 80, "https": 443}
ASK_SECONDS = 10.0
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True)
class Target:
    """Where load may go: scheme, host, port and the path below which a proxy serves it, normalised.

    ``token``: to show there; ``ca_file``: a PEM file of authorities besides the system's. Empty for none.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""
    ca_file: str = field(default="", repr=False, compare=False)
    token: str = field(default="", repr=False, compare=False)

    @property
    def url(self) -> str:
        """Scheme, host and port, always with the port, and the prefix."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"X-Api-Token": self.token} if self.token else {}


def target_of(url: str) -> Target:
    """The parts that decide where packets go. Raises RefusedError for more than scheme, host, port and a path."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    host = (parts.hostname or "").rstrip(".").lower()
    if parts.scheme.lower() not in DEFAULT_PORTS or not host or port == 0 or parts.username is not None:
        raise RefusedError(f"{url!r} is no address to load; expected such as http://127.0.0.1:8000.")
    prefix = parts.path.rstrip("/")
    if parts.query or parts.fragment or not PREFIX.fullmatch(prefix):
        raise RefusedError(f"{url!r} has more than scheme, host, port and a path; leave the rest out.")
    scheme = parts.scheme.lower()
    return Target(scheme, host, port or DEFAULT_PORTS[scheme], prefix)


def admit(
    settings: Settings,
    *,
    host: str = "",
    highest_rps: float = 0.0,
    confirmed: str = "",
    ask: Callable[[str], str] | None = None,
    resolve: Callable[[str, int], frozenset[str]] | None = None,
) -> Target:
    """The target, if the settings of this environment let it be loaded so. Sends nothing to it.

    ``host``: another spelling of the allowed address, or empty. ``confirmed``: the environment's name, as a person
    gave it. ``ask``: puts a question to a person at a terminal; None where there is none. Raises RefusedError.
    """
    if settings.loadtest_allow == "no":
        raise RefusedError(f"LOADTEST_ALLOW is no for {settings.env}: it may not be load tested. See docs/loadtest.md.")
    target = replace(
        target_of(settings.loadtest_host),
        token=settings.loadtest_token.get_secret_value(),
        ca_file=str(settings.loadtest_ca_file or ""),
    )
    if host:
        _check_same(target_of(host), target, resolve or addresses_of)
    if settings.loadtest_max_rps and highest_rps > settings.loadtest_max_rps:
        raise RefusedError(
            f"The profile reaches {highest_rps:g} requests per second; LOADTEST_MAX_RPS allows"
            f" {settings.loadtest_max_rps} in {settings.env}. Choose a smaller RATE or another profile."
        )
    if settings.loadtest_allow == "confirm":
        _check_confirmed(settings.env, target, confirmed, ask)
    return target


def _check_same(asked: Target, allowed: Target, resolve: Callable[[str, int], frozenset[str]]) -> None:
    alike = (asked.scheme, asked.port, asked.prefix) == (allowed.scheme, allowed.port, allowed.prefix)
    # Two names are the same target when every address of the one is an address of the other.
    if alike and (asked.host == allowed.host or resolve(asked.host, asked.port) <= resolve(allowed.host, allowed.port)):
        return
    raise RefusedError(
        f"{asked.url} is not the address that may be loaded here, which is {allowed.url} (LOADTEST_HOST)."
    )


def addresses_of(host: str, port: int) -> frozenset[str]:
    """The addresses of a name. Raises RefusedError for one that has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RefusedError(f"{host} has no address: {error}.") from None
    return frozenset(str(each[4][0]) for each in found)


def _check_confirmed(env: str, target: Target, confirmed: str, ask: Callable[[str], str] | None) -> None:
    if confirmed == env:
        return
    if confirmed:
        raise RefusedError(f"CONFIRM is {confirmed!r}; expected {env!r}, the environment that is to be loaded.")
    if ask is None:
        raise RefusedError(
            f"LOADTEST_ALLOW is confirm for {env}: a person must agree. Add CONFIRM={env} if you are one."
        )
    if ask(f"This sends load to {target.url}, environment {env}. Type {env} to go on: ").strip() != env:
        raise RefusedError("Not confirmed; nothing was sent.")


def check_environment(target: Target, env: str, ask: Callable[[Target, str], bytes] | None = None) -> None:
    """One question to the target: is it the environment that was meant? Raises RefusedError, LoadTestError if away."""
    body = (ask or fetch)(target, "/status")
    try:
        found = _table(body)["environment"]
    except KeyError:
        raise RefusedError(f"{target.url}/status does not say which environment it is; expected {env!r}.") from None
    if found != env:
        raise RefusedError(
            f"{target.url} says that it is {found!r}; ENV asks for {env!r}. Nothing was sent besides this."
        )


def is_cask(target: Target) -> bool:
    """Whether the target is a service of this kind: its /status tells an environment, or refuses as ours does.

    Any other answer is another service's. Raises LoadTestError when it is away.
    """
    answer, body = exchange(target, "GET", "/status")
    if answer.status >= 500 and answer.status != HTTPStatus.NOT_IMPLEMENTED:
        raise LoadTestError(f"{target.url}/status answers {answer.status}; expected a service that is well.")
    known = {"environment"} if answer.status == 200 else {"code", "request_id"}
    return known <= _table(body).keys()


def told(target: Target, path: str) -> dict[str, Any]:
    """The JSON object that the target answers with; empty where it answers otherwise, or not at all."""
    try:
        return _table(fetch(target, path))
    except LoadTestError:
        return {}


def _table(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def fetch(target: Target, path: str) -> bytes:
    """GET one small body, following nothing. Raises LoadTestError when the target is away or answers otherwise."""
    if not path.startswith("/") or path.startswith("//"):
        raise RefusedError(f"{path!r} is no path on the target; expected one that begins with a single slash.")
    answer, body = exchange(target, "GET", path)
    if moved_to := answer.getheader("Location"):
        raise LoadTestError(
            f"{target.url}{path} answers {answer.status} and points to {moved_to}; nothing is followed."
            " If that is the service, name its address: LOADTEST_HOST."
        )
    if answer.status in (401, 403):
        raise LoadTestError(
            f"{target.url}{path} answers {answer.status}; expected a LOADTEST_TOKEN that it accepts:"
            " flask token create loadtest --scope predict --scope admin"
        )
    if answer.status != 200:
        raise LoadTestError(f"{target.url}{path} answers {answer.status}; expected 200.")
    return body


def exchange(
    target: Target, method: str, path: str, data: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request on a connection of its own: the answer and its body. Raises LoadTestError when there is none."""
    connection = connect(target)
    try:
        connection.request(method, target.prefix + path, data, {**target.headers, **(headers or {})})
        answer = connection.getresponse()
        return answer, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise LoadTestError(why_not(target, error)) from None
    finally:
        connection.close()


def why_not(target: Target, error: Exception) -> str:
    """Why there is no answer, and what to do: a certificate that nobody vouches for is no server that is away."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = target.ca_file or "the system's authorities"
        return (
            f"The certificate of {target.url} could not be verified with {known}: {error.verify_message}."
            " Name the PEM file of its authority: LOADTEST_CA_FILE, or --ca."
        )
    if target.scheme == "https" and (isinstance(error, ssl.SSLError) or "handshake" in str(error)):
        return f"{target.url} does not speak TLS as expected: {error}. Is it an http:// address?"
    if target.scheme == "http" and isinstance(error, ConnectionResetError):
        return f"{target.url} does not answer: {error}. Is it an https:// address?"
    if isinstance(error, http.client.HTTPException):
        return f"{target.url} answers no HTTP: {error!r}. Is it an https:// address?"
    return f"{target.url} does not answer: {error}. Is it running? See `make serve`."


def context_of(ca_file: str) -> ssl.SSLContext:
    """Checks certificates and names; trusts the system's authorities, and those in the file. Raises UsageError."""
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{ca_file} holds no certificates that can be read: {error}; expected PEM.") from None
    return context


def connect(target: Target) -> http.client.HTTPConnection:
    """A connection that is opened when it is used; certificates are checked."""
    if target.scheme == "https":
        context = context_of(target.ca_file)
        return http.client.HTTPSConnection(target.host, target.port, timeout=ASK_SECONDS, context=context)
    return http.client.HTTPConnection(target.host, target.port, timeout=ASK_SECONDS)
