"""Typed settings: the only reader of the environment. A leaf; `flask config` and app.cli.config show what it knows."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, get_args, get_origin
from urllib.parse import urlencode, urlsplit

from dotenv.parser import Binding, parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from app.errors import SettingsError
from app.inference.results import NAME

ROOT = Path(__file__).resolve().parent.parent
SECRETS_DIRECTORY = Path("/run/secrets")
ENVIRONMENTS = ("dev", "test", "staging", "prod")
OTHER_NAMES = {"development": "dev", "production": "prod"}
LOCAL_FILE = "env/local.env"
DOCUMENT = "docs/configuration.md"
ENCRYPTED_REDIS = "rediss:"
# Settings that name certificates of authorities.
AUTHORITIES = ("redis_ca_file", "ensemble_ca_file")
MASK = "********"
# Settings that are gone: accepted without effect for one release, and named by `flask config check` and in the log.
REMOVED = frozenset(
    (
        *("ALERTS_EMAIL_TO", "ALERTS_EMAIL_FROM", "ALERTS_SMTP_HOST", "ALERTS_SMTP_PORT", "ALERTS_SMTP_SECURITY"),
        *("ALERTS_SMTP_CA_FILE", "ALERTS_SMTP_USER", "ALERTS_SMTP_PASSWORD", "ALERTS_SMTP_PASSWORD_FILE"),
    )
)
# In ADMIN_NETWORKS: the address by which the machine that a container runs on calls it; see
# app.web.middleware.internal_networks.
CONTAINER_HOST = "container-host"

# Before each line of a service that Apache started: apache/json_lines.py knows ours by it, and takes it away.
LOG_MARK = "CASK_LOG_MARK"
# What docker/steps tell the container: the address by which its host will call it.
HOST_ADDRESS = "CASK_HOST_ADDRESS"
# A name in the environment that starts so can only be meant for us; anything else there may belong to other software.
# LOG_, TLS_, CONTAINER_, MODELS_ and REDIS_ are left out: podman reads CONTAINER_HOST, and many programs read LOG_…,
# TLS_… and REDIS_….
OUR_PREFIXES = (
    *("ALERTS_", "AUTHENTICATION", "CORS_", "ENGINE_", "ENSEMBLE_", "HSTS_", "IMAGES_", "JOBS_", "LOADTEST_"),
    *("METRICS_", "RATE_", "REQUEST_", "SERVER_", "TRACES_", "WEB_"),
)
# Kubernetes (and Docker links) describe a neighbour called `engine` or `web` by the first three; gunicorn reads
# WEB_CONCURRENCY and sets SERVER_SOFTWARE; the last are what CGI (RFC 3875) and its kin tell of a request.
FOREIGN_NAMES = re.compile(
    r".+_SERVICE_HOST|.+_SERVICE_PORT(_.+)?|.+_PORT(_\d+_(TCP|UDP|SCTP)(_.+)?)?|WEB_CONCURRENCY"
    r"|SERVER_(SOFTWARE|PROTOCOL|ADDR|ADMIN|SIGNATURE)|REQUEST_(METHOD|SCHEME|URI)"
)

# Not settings of ours. DNNL_… is the older name of ONEDNN_….
PROCESSOR_SWITCHES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")

# What Docker, POSIX shells and python-dotenv all read as the same text; see docs/decisions/0002-settings.md.
PLAIN_LINE = re.compile(r"[A-Z][A-Z0-9_]*=[A-Za-z0-9_./:,@%+=-]*")

# For dev and test, so that a fresh checkout starts; staging and prod never see it.
DEVELOPMENT_KEY = "for-development-only"
SECRET_MIN_CHARACTERS = 16
SECRET_MIN_DIFFERENT_CHARACTERS = 6
# The value of a misspelt name is not printed when the name sounds like this.
SECRET_SOUNDING = re.compile(r"SECRET|PASSW|TOKEN|CREDENTIAL|PRIVATE|(^|_)(KEYS?|PASS|DSN|AUTH)(_|$)")
PLACEHOLDER_WORDS = re.compile(
    r"change|changeit|changeme|default|dev|development|dummy|example|fixme|for|here|insert|key|me|my|only|password|"
    r"placeholder|please|put|replace|replaceme|sample|secret|secretkey|test|this|todo|value|x+|your"
)
PLACEHOLDER_PHRASES = re.compile(r"change.?(me|this|it)|replace.?(me|this)|place.?holder")

HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
MODEL_NAME = re.compile(f"{NAME}(@{NAME})?")
RATE_LIMIT = re.compile(r"[1-9][0-9]{0,8}/(second|minute|hour|day)")
# No part of it begins with a dot, so none is `..`.
PATH_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
UPSTREAM_NAME = re.compile(NAME)
MEMORY_SIZE = re.compile(r"[1-9][0-9]*[bkmg]?")
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,2})?")

# Linux holds a socket's path in 108 bytes; some room is left for a suffix such as `.new` while it is replaced.
SOCKET_PATH_MAX_BYTES = 99


def setting(
    default: Any,
    sentence: str,
    *,
    unit: str = "",
    expects: str = "",
    by_default: str = "",
    section: str = "",
    secret: bool = False,
    optional: bool = False,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """Declare one setting: its default, what it means, and the unit of its number.

    ``expects`` says in words what is right where type and bounds do not, ``by_default`` what a computed default is.
    ``section`` opens a section of ``show`` and of the document; the settings that follow belong to it. ``secret``
    values are masked and may come from files; staging and prod require them, unless ``optional``.
    """
    about: dict[str, Any] = {
        "unit": unit,
        "expects": expects,
        "by_default": by_default,
        "section": section,
        "secret": secret,
        "required": secret and not optional,
    }
    start: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**start, description=sentence, ge=at_least, le=at_most, json_schema_extra=about)


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


RootedPath = Annotated[Path, AfterValidator(_under_root)]
OptionalPath = Annotated[Path | None, AfterValidator(_under_root)]
Host = Annotated[str, AfterValidator(_address_or_host)]
Hosts = Annotated[tuple[Host, ...], BeforeValidator(_split)]
WebhookHosts = Annotated[tuple[Annotated[str, AfterValidator(_host_and_port)], ...], BeforeValidator(_split)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_split)]
NetworksOrHost = Annotated[tuple[Annotated[str, AfterValidator(_network_or_host)], ...], BeforeValidator(_split)]
ModelNames = Annotated[tuple[Annotated[str, AfterValidator(_matching(MODEL_NAME))], ...], BeforeValidator(_split)]
ImageFormats = Annotated[tuple[Literal["jpeg", "png", "webp", "bmp", "gif", "tiff"], ...], BeforeValidator(_split)]
MemorySize = Annotated[str, AfterValidator(_matching(MEMORY_SIZE))]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
PrefixedUrl = Annotated[str, AfterValidator(_prefixed_url)]
SecretUrl = Annotated[SecretStr, AfterValidator(_http_url)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_split)]
RateLimits = Annotated[tuple[Annotated[str, AfterValidator(_matching(RATE_LIMIT))], ...], BeforeValidator(_split)]
Upstreams = Annotated[tuple[Annotated[str, AfterValidator(_upstream)], ...], BeforeValidator(_split)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
PathPrefix = Annotated[str, AfterValidator(lambda value: value and _matching(PATH_PREFIX)(value))]
DeviceWish = Annotated[str, AfterValidator(_matching(DEVICE))]


class Settings(BaseSettings):
    """Every setting of this start, checked and frozen. Made by :func:`load`, never by hand.

    The environment variable of a field is its name in upper case.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    root: Path  # the repository; not a setting: relative paths start here

    env: Literal["dev", "test", "staging", "prod"] = setting(
        "dev",
        "Which environment this is; picks env/<ENV>.env. Also accepted: development, production.",
        section="General",
    )
    secret_key: SecretStr = setting(
        "",
        "Signs what the service hands out and takes back. Required in staging and prod.",
        by_default="a fixed key in dev and test, none in staging and prod",
        secret=True,
        expects=f"at least {SECRET_MIN_CHARACTERS} random characters, such as `openssl rand -hex 32` prints",
    )
    debug: bool = setting(False, "Show stack traces and the debugger in the browser. Refused in staging and prod.")
    reload: bool = setting(False, "Load the code again when a file changes. Only in dev.")
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "The least severe message that is logged."
    )
    log_format: Literal["text", "json"] = setting("text", "Lines for people (text) or for a log collector (json).")

    listen_host: Host = setting(
        "127.0.0.1",
        "The address to listen on; 0.0.0.0 is every one of this machine, :: every one of IPv6 and IPv4.",
        expects="an address or a host name",
        section="Addresses and TLS",
    )
    port: int = setting(8000, "The port for plain HTTP.", at_least=1, at_most=65535)
    server_name: Host = setting(
        "localhost", "The host name callers use; requests for another host are refused.", expects="a host name"
    )
    server_aliases: Hosts = setting(
        "localhost,127.0.0.1,::1",
        "Further host names and addresses callers may use, besides SERVER_NAME.",
        expects="host names or addresses, with commas between",
    )
    https_port: int = setting(0, "The port for HTTPS; 0 is no TLS here.", at_least=0, at_most=65535)
    tls_certificate: OptionalPath = setting(None, "The certificate chain, a PEM file.", expects="the path of a file")
    tls_key: OptionalPath = setting(None, "The certificate's private key, a PEM file.", expects="the path of a file")
    hsts_seconds: int = setting(
        0, "How long browsers remember to use HTTPS only; 0 sends no such header.", unit="seconds", at_least=0
    )
    trusted_proxies: Networks = setting(
        "",
        "Proxies whose word on the caller's address is taken; empty trusts none.",
        expects="addresses or networks such as 10.0.0.0/8, with commas between",
    )

    path_prefix: PathPrefix = setting(
        "",
        "The path below which callers find the service, where a proxy offers it below one; empty for none.",
        expects="a path such as /vision, without a slash at the end",
    )

    authentication: Literal["required", "off"] = setting(
        "required",
        "Whether callers must show a token, made by `flask token create`; off lets everybody in.",
        section="Access",
    )
    admin_networks: NetworksOrHost = setting(
        "127.0.0.0/8,::1,container-host",
        "From where /status and the reasons of /readyz are answered; /metrics has METRICS_ALLOW. container-host is the"
        " machine that a container runs on.",
        expects="addresses or networks such as 10.0.0.0/8, or container-host, with commas between",
    )
    rate_limit_per_token: RateLimits = setting(
        "",
        "How many requests a token may send; empty is as many as it likes.",
        expects="limits such as 600/minute or 20/second,10000/day: so many a second, minute, hour or day",
    )
    rate_limit_per_address: RateLimits = setting(
        "",
        "How many requests an address may send, with a token or without; empty is as many as it likes.",
        expects="limits such as 600/minute or 20/second,10000/day: so many a second, minute, hour or day",
    )
    cors_origins: Origins = setting(
        "",
        "Pages of which other origins may call from a browser, with a token. Empty is our own pages only.",
        expects="origins such as https://app.example, with commas between, or all",
    )

    state_dir: RootedPath = setting(
        "var",
        "The one folder that is written: sockets, caches, jobs, tokens. Back this up.",
        expects="the path of a folder",
        section="State and models",
    )
    redis_url: RedisUrl = setting(
        "",
        "A Redis for what several machines share: caches, limits, and jobs with JOBS_STORE=redis. Empty keeps all of it"
        " in files below STATE_DIR.",
        secret=True,
        optional=True,
        expects="an address such as redis://localhost:6379/0, or rediss://user:password@host:6379/0 with TLS",
    )
    redis_ca_file: OptionalPath = setting(
        None,
        "Certificates that vouch for a Redis with rediss://, a PEM file, besides those of the system.",
        expects="the path of a file",
    )
    models_dir: RootedPath = setting(
        "models", "The model store, <name>/<version>/ below it.", expects="the path of a folder"
    )
    models: ModelNames = setting(
        "",
        "Models to serve, as name or name@version; empty is the newest version of each.",
        expects="name or name@version, with commas between",
    )
    models_default: ModelNames = setting(
        "",
        "Models that answer requests which name none, the first of each task; empty is the one that was there first.",
        expects="names with commas between",
    )

    models_keep_previous_seconds: float = setting(
        900,
        "How long a version that serves no more stays loaded, so that a rollback is instant; 0 unloads it at once.",
        unit="seconds",
        at_least=0,
        at_most=604800,
    )

    engine_mode: Literal["service", "child", "in_process"] = setting(
        "service",
        "Where models run: a service of Apache, a child of `flask run`, or in the web process.",
        section="Engine",
    )
    engine_socket: RootedPath = setting(
        lambda data: data["state_dir"] / "run" / "engine.sock",
        "The socket between web and engine.",
        by_default="<STATE_DIR>/run/engine.sock",
        expects=f"a path of at most {SOCKET_PATH_MAX_BYTES} bytes",
    )
    engine_workers: int = setting(0, "Batches computed at the same time; 0 is by cores.", at_least=0, at_most=256)
    engine_nice: int = setting(
        5,
        "By how much the engine steps back when processor time is short, so that health and refusals come first.",
        unit="nice(2) levels",
        at_least=0,
        at_most=19,
    )
    engine_torch_threads: int = setting(1, "Threads one batch is computed with.", at_least=1, at_most=256)
    device: DeviceWish = setting(
        "auto",
        "What computes the models: auto is a GPU where there is one and torch was built for it, else the processor.",
        expects="auto, cpu, cuda or cuda:0, cuda:1 and so on",
    )
    runtime: Literal[
        "auto", "torch", "torch-channels-last", "torch-fused", "torch-graphs", "aotinductor", "openvino"
    ] = setting("auto", "What computes the models; auto is what `make model-build` chose, else torch.")
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = setting(
        "auto", "The precision models are computed in; auto is what `make model-build` chose, else fp32."
    )
    model_build: Literal["background", "off"] = setting(
        "off",
        "Whether the engine builds models that were not measured on this machine, beside serving them.",
    )
    engine_max_batch_size: int = setting(
        0,
        "Most images in one batch; 0 is 4 on a processor, and on a GPU what `make model-build` measured as best.",
        unit="images",
        at_least=0,
        at_most=1024,
    )
    engine_max_queue_delay_ms: float = setting(
        0, "Longest a request waits for others to join its batch.", unit="milliseconds", at_least=0, at_most=10000
    )
    engine_max_queue_size: int = setting(
        0,
        "Images that may wait; beyond that callers get 503 at once. 0 is by engine workers.",
        unit="images",
        at_least=0,
        at_most=100000,
    )
    engine_drain_seconds: float = setting(
        20,
        "Longest the engine finishes accepted work when it is told to stop.",
        unit="seconds",
        at_least=0,
        at_most=3600,
    )
    engine_hang_seconds: float = setting(
        10,
        "A process that gives no sign of life, or makes no progress, for so long is ended and replaced.",
        unit="seconds",
        at_least=1,
        at_most=3600,
    )

    engine_self_test_seconds: float = setting(
        3600,
        "How often each model is asked its stored questions again while it serves; 0 only when it is loaded.",
        unit="seconds",
        at_least=0,
        at_most=604800,
    )

    web_processes: int = setting(
        0, "Processes that answer requests; 0 is by cores and memory.", at_least=0, at_most=256, section="Web processes"
    )
    web_threads: int = setting(
        0, "Threads in each web process; so many requests at once. 0 is as many as suit.", at_least=0, at_most=1024
    )

    server_max_connections: int = setting(
        0,
        "Connections Apache holds at once; 0 is by the web threads.",
        at_least=0,
        at_most=65536,
        section="Connections",
    )
    server_header_timeout_seconds: int = setting(
        10, "Longest a caller may take to send the header.", unit="seconds", at_least=1, at_most=3600
    )
    server_body_timeout_seconds: int = setting(
        30, "Longest a caller may go without sending any of the body.", unit="seconds", at_least=1, at_most=3600
    )
    server_shutdown_seconds: int = setting(
        30, "Longest a stop waits for requests in flight.", unit="seconds", at_least=0, at_most=3600
    )

    request_timeout_seconds: float = setting(
        30,
        "The time a request has when its caller does not say.",
        unit="seconds",
        at_least=0.001,
        at_most=3600,
        section="Requests and images",
    )
    request_max_timeout_seconds: float = setting(
        120, "The most time a caller may ask for.", unit="seconds", at_least=0.001, at_most=3600
    )
    request_max_wait_seconds: float = setting(
        0.4,
        "A request that would wait longer than this for its answer is refused with 503, before its body is read.",
        unit="seconds",
        at_least=0.01,
        at_most=3600,
    )
    request_microcache_ms: int = setting(
        250,
        "Answers of cheap routes (health, the list of models) are kept for so long; 0 keeps none.",
        unit="milliseconds",
        at_least=0,
        at_most=10000,
    )
    request_max_bytes: int = setting(
        33554432, "The largest request body; larger ones get 413.", unit="bytes", at_least=1024, at_most=2**31 - 1
    )
    request_memory_bytes: int = setting(
        0,
        "The memory that all requests together may hold: bodies, decoded images, what waits; 0 is by the machine's or"
        " the container's memory.",
        unit="bytes",
        at_least=0,
        at_most=2**50,
    )
    request_max_images: int = setting(
        32, "Most images in one request; more get 413.", unit="images", at_least=1, at_most=1024
    )
    images_max_bytes: int = setting(
        16777216, "The largest image file; larger ones get 413.", unit="bytes", at_least=1024, at_most=2**31 - 1
    )
    images_max_pixels: int = setting(
        50000000,
        "The largest image, width times height; refused by its header, before it is decoded.",
        unit="pixels",
        at_least=1,
        at_most=10**9,
    )
    images_max_side: int = setting(
        30000,
        "The longest side of an image, its width or its height; refused by its header, before it is decoded.",
        unit="pixels",
        at_least=1,
        at_most=10**6,
    )
    images_max_decode_seconds: float = setting(
        10,
        "Longest that one image may take to be decoded; one that takes longer gets 422.",
        unit="seconds",
        at_least=0.1,
        at_most=3600,
    )
    images_formats: ImageFormats = setting(
        "jpeg,png,webp",
        "Image formats that are decoded; others get 415.",
        expects="some of jpeg, png, webp, bmp, gif, tiff, with commas between",
    )

    jobs: Literal["on", "off"] = setting(
        "on", "Whether images can be left here to be predicted in the background.", section="Background jobs"
    )
    jobs_store: Literal["disk", "redis"] = setting(
        "disk",
        "Where jobs lie: on this machine's disk, or in the Redis of REDIS_URL, so that several machines share them.",
    )
    jobs_in_flight: int = setting(
        1,
        "Images of jobs that are predicted at the same time; few, so that callers who wait come first.",
        unit="images",
        at_least=1,
        at_most=64,
    )
    jobs_max_images: int = setting(
        1000, "Most images in one job; more get 413.", unit="images", at_least=1, at_most=100000
    )
    jobs_max_bytes: int = setting(
        268435456,
        "The images of one job together, unpacked; more get 413.",
        unit="bytes",
        at_least=1024,
        at_most=2**40,
    )
    jobs_max_queued: int = setting(
        100, "Jobs that may wait or run; beyond that callers get 503.", unit="jobs", at_least=1, at_most=100000
    )
    jobs_max_disk_bytes: int = setting(
        2147483648,
        "Most that all jobs may take below STATE_DIR, or in Redis; beyond that callers get 507.",
        unit="bytes",
        at_least=1024,
        at_most=2**50,
    )
    jobs_keep_seconds: float = setting(
        86400,
        "How long the results of a job are kept after its end.",
        unit="seconds",
        at_least=1,
        at_most=31536000,
    )

    jobs_webhook_hosts: WebhookHosts = setting(
        "",
        "Hosts that may be told of a job's end; empty allows none.",
        expects="host names or addresses, each with or without :port, with commas between",
    )
    jobs_webhook_secret: SecretStr = setting(
        "",
        "Signs what those hosts are told, so that they can tell it from a forgery.",
        secret=True,
        optional=True,
        expects=f"at least {SECRET_MIN_CHARACTERS} random characters, such as `openssl rand -hex 32` prints",
    )

    metrics_allow: Networks = setting(
        "",
        "Who may read /metrics besides this machine, such as the network of your Prometheus; tokens come on top.",
        expects="addresses or networks such as 10.0.0.0/8, with commas between",
        section="Telemetry",
    )
    log_file: OptionalPath = setting(
        None,
        "Where `make serve` also keeps every line; empty keeps none. A container's lines are kept by its engine.",
        expects="the path of a file",
    )
    log_file_max_bytes: int = setting(
        20_000_000, "How large LOG_FILE may become before it is put aside.", unit="bytes", at_least=10_000
    )
    log_file_count: int = setting(
        5, "Files kept: LOG_FILE itself, LOG_FILE.1 and so on.", unit="files", at_least=1, at_most=1000
    )
    alerts_repeat_seconds: float = setting(
        900,
        "The same fault is told at most once in so long, with a count of how often it happened.",
        unit="seconds",
        at_least=1,
        at_most=604800,
    )
    alerts_webhook_url: SecretUrl = setting(
        "",
        "Where errors are sent as Slack takes them: JSON with a text; empty sends none.",
        secret=True,
        optional=True,
        expects="an address such as https://hooks.example.org/services/…",
    )
    sentry_dsn: SecretUrl = setting(
        "",
        "Where Sentry takes errors; empty sends none. No image, header or local variable is sent.",
        secret=True,
        optional=True,
        expects="a DSN such as https://key@sentry.example.org/1",
    )
    traces_endpoint: SecretUrl = setting(
        "",
        "Where traces go by OTLP over HTTP; empty makes none.",
        secret=True,
        optional=True,
        expects="an address such as http://collector:4318/v1/traces",
    )
    traces_share: float = setting(
        0.1,
        "How many of the requests whose caller did not decide are traced.",
        at_least=0,
        at_most=1,
        expects="a number from 0 to 1",
    )

    cache: Literal["auto", "off", "disk", "redis"] = setting(
        "auto",
        "Where answers are kept for equal images and options; auto is Redis where REDIS_URL is set, else disk.",
        section="Kept answers",
    )
    cache_seconds: int = setting(
        86400, "How long an answer is kept at most.", unit="seconds", at_least=1, at_most=31536000
    )
    cache_max_bytes: int = setting(
        67108864,
        "The room that kept answers may take on disk; the oldest give way. Redis has a setting of its own.",
        unit="bytes",
        at_least=1048576,
        at_most=2**40,
    )

    ensemble_upstreams: Upstreams = setting(
        "",
        "Other services of this API that POST /v1/ensemble asks, each with a name; no others are ever asked.",
        expects="name=address, such as north=https://north.example:8443, with commas between",
        section="Ensembles",
    )
    ensemble_timeout_seconds: float = setting(
        5, "The time that each member has when the caller does not say.", unit="seconds", at_least=0.01, at_most=3600
    )
    ensemble_ca_file: OptionalPath = setting(
        None,
        "Certificates that vouch for those services, a PEM file; empty is those of the system.",
        expects="the path of a file",
    )
    ensemble_token: SecretStr = setting(
        "",
        "The API token that is shown to those services.",
        secret=True,
        optional=True,
        expects="a token as `flask token create` prints it there",
    )

    loadtest_host: PrefixedUrl = setting(
        lambda data: f"http://127.0.0.1:{data['port']}",
        "The one address that may be load tested from here.",
        by_default="http://127.0.0.1:<PORT>",
        expects="an address such as http://127.0.0.1:8000 or https://box.example/cask",
        section="Load test",
    )
    loadtest_ca_file: OptionalPath = setting(
        None,
        "Certificates that vouch for that address besides those of the system, a PEM file.",
        expects="the path of a file",
    )
    loadtest_token: SecretStr = setting(
        "",
        "The token that a load test shows, with the scopes predict and admin; needed where AUTHENTICATION is required.",
        secret=True,
        optional=True,
        expects="a token as `flask token create` prints it",
    )
    loadtest_allow: Literal["yes", "confirm", "no"] = setting(
        "no", "Whether a load test may run: yes, only after a person confirms, or no."
    )
    loadtest_max_rps: int = setting(
        0, "The highest rate a load test may reach; 0 is no bound.", unit="requests per second", at_least=0
    )

    container_memory: MemorySize = setting(
        "2g", "Memory the container may use.", expects="a size such as 512m or 2g", section="Container"
    )
    container_cpus: float = setting(
        0, "Cores the container may use, such as 1.5; 0 is all of them.", unit="cores", at_least=0, at_most=4096
    )

    _sources: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read from the layers that :func:`load` hands over, and from nothing else."""
        assert isinstance(init_settings, InitSettingsSource)
        layers: Sequence[Layer] = init_settings.init_kwargs.pop("layers", ())
        return (init_settings, *(LayerSource(settings_cls, layer) for layer in layers))

    @property
    def sources(self) -> Mapping[str, str]:
        """Field name → where its value came from: environment, file PATH, env/prod.env:LINE or default."""
        return MappingProxyType(self._sources)

    @property
    def is_deployed(self) -> bool:
        """Whether this is staging or prod, where strangers may call and secrets must be real."""
        return self.env in ("staging", "prod")

    @property
    def tls_enabled(self) -> bool:
        """Whether this server itself speaks HTTPS."""
        return self.https_port > 0

    @property
    def redis_address(self) -> str:
        """REDIS_URL for whoever connects, with REDIS_CA_FILE in it where that counts. Has the password in it."""
        url = self.redis_url.get_secret_value()
        if self.redis_ca_file is None or not url.startswith(ENCRYPTED_REDIS):
            return url
        return f"{url}?{urlencode({'ssl_ca_certs': str(self.redis_ca_file)})}"

    @property
    def redis_place(self) -> str:
        """Host, port and database of REDIS_URL, to be shown: without user and password. Empty without Redis."""
        url = urlsplit(self.redis_url.get_secret_value())
        return f"{url.netloc.rpartition('@')[2]}{url.path}"

    @property
    def server_names(self) -> tuple[str, ...]:
        """Every host name that is accepted, SERVER_NAME first."""
        return tuple(dict.fromkeys((self.server_name, *self.server_aliases)))

    @property
    def secret_files(self) -> tuple[Path, ...]:
        """Files that secrets were read from: those of NAME_FILE and of /run/secrets."""
        found = {source.removeprefix("file ") for source in self._sources.values() if source.startswith("file ")}
        return tuple(Path(each) for each in sorted(found))

    def text(self, field: str) -> str:
        """One value as it would stand in an env file; secrets in clear, so mask before printing."""
        return _text(getattr(self, field))


@dataclass(frozen=True)
class Reading:
    """One value as it was found, and where."""

    value: str
    source: str


Layer = Mapping[str, Reading]


class LayerSource(PydanticBaseSettingsSource):
    """One place that settings come from, already read."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self.layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value of one field, or None where this place does not set it."""
        reading = self.layer.get(field_name)
        return (reading.value if reading else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        return {name: reading.value for name, reading in self.layer.items()}


@dataclass(frozen=True)
class Declaration:
    """What the table above says about one setting."""

    field: str
    info: FieldInfo
    section: str

    @property
    def name(self) -> str:
        return self.field.upper()

    @property
    def sentence(self) -> str:
        return self.info.description or ""

    @property
    def unit(self) -> str:
        return str(self._about["unit"])

    @property
    def is_secret(self) -> bool:
        return bool(self._about["secret"])

    @property
    def is_required(self) -> bool:
        """Whether staging and prod do not start without it, or with a weak one."""
        return bool(self._about["required"])

    @property
    def default(self) -> str:
        """The default as it would stand in an env file, or how it is computed."""
        return str(self._about["by_default"]) or _text(self.info.default)

    @property
    def choices(self) -> tuple[str, ...]:
        """The right words, where a value (or each part of a list) is one of a few."""
        of = self.info.annotation
        of = get_args(of)[0] if get_origin(of) is tuple else of
        return ("true", "false") if of is bool else get_args(of) if get_origin(of) is Literal else ()

    @property
    def expected(self) -> str:
        """What a right value is, in words that follow 'expected'."""
        if self._about["expects"]:
            return str(self._about["expects"])
        if self.choices:
            return "true or false" if self.info.annotation is bool else "one of " + ", ".join(self.choices)
        return self._expected_number()

    def _expected_number(self) -> str:
        kind = "a whole number" if self.info.annotation is int else "a number"
        low, high = (self._bound(word) for word in ("ge", "le"))
        span = f"from {low} to {high}" if high else f"of at least {low}"
        return " ".join(part for part in (kind, f"of {self.unit}" if self.unit else "", span) if part)

    def _bound(self, word: str) -> str:
        found = [getattr(one, word) for one in self.info.metadata if getattr(one, word, None) is not None]
        return _text(found[0]) if found else ""

    @property
    def _about(self) -> dict[str, Any]:
        about = self.info.json_schema_extra
        assert isinstance(about, dict)
        return about


def _declare() -> Iterator[Declaration]:
    section = ""
    for field, info in Settings.model_fields.items():
        if isinstance(info.json_schema_extra, dict):
            section = str(info.json_schema_extra["section"]) or section
            yield Declaration(field, info, section)


DECLARATIONS: Mapping[str, Declaration] = MappingProxyType({one.field: one for one in _declare()})
SECRETS = tuple(one for one in DECLARATIONS.values() if one.is_secret)


class Sources(NamedTuple):
    """Where settings are looked for; ``load(*place)``. Tests look elsewhere."""

    environ: Mapping[str, str] = os.environ
    root: Path = ROOT
    secrets_directory: Path = SECRETS_DIRECTORY

    def of(self, env: str) -> Sources:
        """The same, but for this environment instead of the one that ENV names; empty changes nothing."""
        return self._replace(environ={**self.environ, "ENV": env}) if env else self


def load(
    environ: Mapping[str, str] = os.environ, root: Path = ROOT, secrets_directory: Path = SECRETS_DIRECTORY
) -> Settings:
    """Read, check and freeze the settings of this start.

    Raises SettingsError, its message one line, for the first thing that is unknown, wrong or unfit for the environment.
    """
    settings = resolve(environ, root, secrets_directory)
    _check(settings)
    return settings


def resolve(
    environ: Mapping[str, str] = os.environ, root: Path = ROOT, secrets_directory: Path = SECRETS_DIRECTORY
) -> Settings:
    """Like :func:`load`, without asking whether the values fit together and the secrets are real. For looking only."""
    env = _choose_environment(environ)
    _refuse_unknown_names(environ)
    here = _read_environment(environ)
    named = _read_named_secret_files(environ, root, besides=here)
    layers = (
        {"env": env},
        here,
        named,
        _read_secrets_directory(secrets_directory, besides={**here, **named}),
        read_env_file(root, LOCAL_FILE),
        read_env_file(root, f"env/{env.value}.env"),
        _development_secrets(env.value),
    )
    return _build(root, layers)


def processor_limits(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What is set of the switches by which oneDNN (so OpenVINO too) and torch hide instructions of the processor."""
    return {name: environ[name] for name in PROCESSOR_SWITCHES if environ.get(name)}


def is_check(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a start is only tried, for somebody who reads what is said: ``apache/serve.sh --check``."""
    return environ.get("CASK_CHECK") == "yes"


def log_format(environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> str:
    """LOG_FORMAT, ``text`` or ``json``, also where other settings are wrong: of the first place that can be read."""
    env = OTHER_NAMES.get(environ.get("ENV", ""), environ.get("ENV", "")) or "dev"
    given = environ.get("LOG_FORMAT", "")
    for name in () if given else (LOCAL_FILE, f"env/{env}.env"):
        try:
            lines = (root / name).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        given = given or next((line.partition("=")[2] for line in lines if line.startswith("LOG_FORMAT=")), "")
    return "json" if given.strip() == "json" else "text"


def removed(environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> list[str]:
    """The names of settings that are given, here or in ``env/local.env``, and have no effect any more."""
    path = root / LOCAL_FILE
    lines = path.read_text("utf-8-sig").splitlines() if path.is_file() else []
    given = {name for name, _, value in (line.partition("=") for line in lines) if value.strip()}
    return sorted(REMOVED & (given | {name for name in environ if environ[name]}))


def describe(env: str, root: Path = ROOT) -> Settings:
    """One environment as the repository describes it: without this machine's environment, secrets and local.env."""
    chosen = _choose_environment({"ENV": env})
    return _build(root, ({"env": chosen}, read_env_file(root, f"env/{chosen.value}.env")))


def _build(root: Path, layers: Sequence[Layer]) -> Settings:
    readings = {name: reading for layer in reversed(layers) for name, reading in layer.items()}
    values: dict[str, Any] = {"root": root, "layers": layers}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        field = str(error.errors(include_input=False, include_url=False)[0]["loc"][0])
        _refuse_value(field, readings[field].value, readings[field].source)
    settings._sources = {name: readings[name].source if name in readings else "default" for name in DECLARATIONS}
    return settings


# Where values come from


def _choose_environment(environ: Mapping[str, str]) -> Reading:
    given = environ.get("ENV", "")
    env = OTHER_NAMES.get(given, given) or "dev"
    if env not in ENVIRONMENTS:
        _refuse_value("env", given, "environment")
    return Reading(env, "environment" if given else "default")


def _refuse_unknown_names(environ: Mapping[str, str]) -> None:
    files = {f"{one.name}_FILE" for one in SECRETS}
    for name in sorted(environ):
        if not environ[name] or not name.startswith(OUR_PREFIXES) or FOREIGN_NAMES.fullmatch(name):
            continue
        if name.lower() not in DECLARATIONS and name not in files | REMOVED:
            _refuse_name(name, environ[name], "environment")


def _read_environment(environ: Mapping[str, str]) -> Layer:
    return {
        field: Reading(environ[one.name], "environment")
        for field, one in DECLARATIONS.items()
        if environ.get(one.name) and field != "env"
    }


# A secret that an earlier place gives is not read again: the file may be for another user's eyes only.


def _read_named_secret_files(environ: Mapping[str, str], root: Path, besides: Layer) -> Layer:
    layer = {}
    for one in (one for one in SECRETS if one.field not in besides):
        given = environ.get(f"{one.name}_FILE")
        if given and (value := _read_secret(root / given, f"{one.name}_FILE")):
            layer[one.field] = Reading(value, f"file {root / given}")
    return layer


def _read_secrets_directory(directory: Path, besides: Layer) -> Layer:
    layer = {}
    for one in (one for one in SECRETS if one.field not in besides):
        path = directory / one.field
        if os.path.lexists(path) and (value := _read_secret(path, one.name)):
            layer[one.field] = Reading(value, f"file {path}")
    return layer


def _read_secret(path: Path, name: str) -> str:
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(
            f"{name} is to come from the file {path}, which cannot be read ({reason}); expected a readable text file."
        ) from None


def read_env_file(root: Path, name: str) -> Layer:
    """Field → what an env file sets; an empty value is not set. Raises SettingsError."""
    if name == LOCAL_FILE and not os.path.lexists(root / name):
        return {}
    try:
        # Editors on Windows put a mark before the first line.
        with (root / name).open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(f"{name} cannot be read ({reason}); expected an env file in {root}.") from None
    layer: dict[str, Reading] = {}
    for binding in bindings:
        if found := _read_binding(binding, name, layer):
            field, reading = found
            layer[field] = reading
    return {field: reading for field, reading in layer.items() if reading.value and field != "env"}


def _read_binding(binding: Binding, file: str, before: Layer) -> tuple[str, Reading] | None:
    """Field and value of one line, None for a comment. Raises SettingsError."""
    text = binding.original.string
    if not text.strip() or text.lstrip().startswith("#"):
        return None
    # python-dotenv counts the blank lines above an assignment as part of it.
    line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
    source = f"{file}:{line}"
    _refuse_unless_plain(text.strip("\r\n"), source)
    name, value = str(binding.key), str(binding.value)
    if name in REMOVED:
        return None
    if name.lower() not in DECLARATIONS:
        _refuse_name(name, value, source)
    if name.lower() in before:
        first = before[name.lower()].source
        raise SettingsError(
            f"{name} is {_shown(name, value)} (from {source}), but {first} sets it too; expected it once."
        )
    if name == "ENV" and file != f"env/{value}.env":
        raise SettingsError(
            f"ENV is {value!r} (from {source}); a file cannot choose the environment. Set ENV in the environment."
        )
    return name.lower(), Reading(value, source)


def _refuse_unless_plain(text: str, source: str) -> None:
    if not PLAIN_LINE.fullmatch(text):
        name = re.split(r"\W", text.strip().removeprefix("export "), maxsplit=1)[0]
        raise SettingsError(
            f"{source} is not a plain line (at {name!r}); expected NAME=value with letters, digits and ./:,@%+=_- only:"
            " no quotes, spaces, `$`, `export` or comment after the value, which Docker and the shell read differently."
        )


def _development_secrets(env: str) -> Layer:
    return {} if env in ("staging", "prod") else {"secret_key": Reading(DEVELOPMENT_KEY, "default")}


# What is refused, in one line each


def _refuse_value(field: str, value: str, source: str, expected: str = "") -> NoReturn:
    one = DECLARATIONS[field]
    wrong = next((part for part in value.split(",") if part.strip() not in one.choices), value)
    found = f"{_shown(one.name, value)} ({_place(source)})" if value else "not set"
    raise SettingsError(
        f"{one.name} is {found}; expected {expected or one.expected}.{did_you_mean(wrong, one.choices)}"
    )


def _refuse_name(name: str, value: str, source: str) -> NoReturn:
    known = [one.name for one in DECLARATIONS.values()]
    raise SettingsError(
        f"{name} is {_shown(name, value)} ({_place(source)}), but there is no such setting; expected a name"
        f" from {DOCUMENT}.{did_you_mean(name, known)}"
    )


def did_you_mean(given: str, choices: Sequence[str]) -> str:
    """`` Did you mean 'prod'?``, or nothing where no choice is near."""
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(given.lower(), folded, n=1, cutoff=0.6)
    return f" Did you mean {folded[close[0]]!r}?" if close and given not in choices else ""


def _place(source: str) -> str:
    return {"environment": "from the environment", "default": "by default"}.get(source, f"from {source}")


def _shown(name: str, value: str) -> str:
    """The value for a message, masked if it is secret or might be."""
    one = DECLARATIONS.get(name.lower())
    if one.is_secret if one else SECRET_SOUNDING.search(name):
        return MASK
    return repr(value if len(value) <= 80 else value[:79] + "…")


def _text(value: Any) -> str:
    """A value as it would stand in an env file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, tuple):
        return ",".join(value)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


# What must fit together


def problem(settings: Settings) -> str:
    """Why the service may not start so, in one line; empty when it may."""
    try:
        _check(settings)
    except SettingsError as error:
        return error.message
    return ""


def _check(settings: Settings) -> None:
    _check_secrets(settings)
    _check_development_aids(settings)
    _check_tls(settings)
    _check_socket(settings)
    _check_limits(settings)
    _check_cache(settings)
    _check_authorities(settings)
    if settings.jobs_store == "redis" and not settings.text("redis_url"):
        _refuse(settings, "jobs_store", "disk, as REDIS_URL is not set")
    if settings.jobs_webhook_hosts and not settings.jobs_webhook_secret.get_secret_value():
        _refuse(
            settings,
            "jobs_webhook_secret",
            "a secret, as JOBS_WEBHOOK_HOSTS names some: unsigned, a message could be anybody's",
        )
    _check_ensemble(settings)


def _check_secrets(settings: Settings) -> None:
    """In staging and prod each secret that is required is there and is not a placeholder."""
    for one in (each for each in SECRETS if each.is_required and settings.is_deployed):
        value = settings.text(one.field)
        if not value:
            raise SettingsError(
                f"{one.name} is not set (ENV is {settings.env!r}); expected it in the environment, in the file that"
                f" {one.name}_FILE names, or in {SECRETS_DIRECTORY / one.field}: {one.expected}."
            )
        if reason := weakness(value):
            _refuse(settings, one.field, f"{one.expected}; this one {reason}")


def weakness(secret: str) -> str:
    """Why it is no secret that can be used, in words that follow 'this one'; empty when it can."""
    words = re.findall(r"[a-z]+", secret.lower())
    if words and all(PLACEHOLDER_WORDS.fullmatch(word) for word in words) and len(re.findall(r"\d", secret)) < 8:
        return "is a placeholder"
    if PLACEHOLDER_PHRASES.search(secret.lower()):
        return "is a placeholder"
    if len(secret) < SECRET_MIN_CHARACTERS:
        return f"has {len(secret)}"
    return "repeats few characters" if len(set(secret)) < SECRET_MIN_DIFFERENT_CHARACTERS else ""


def _check_development_aids(settings: Settings) -> None:
    """What helps a developer harms where strangers call."""
    if settings.reload and settings.env != "dev":
        _refuse(settings, "reload", f"false in {settings.env}: code is loaded again in dev only")
    if settings.debug and settings.is_deployed:
        _refuse(settings, "debug", f"false in {settings.env}: the debugger lets callers run code")


def _check_tls(settings: Settings) -> None:
    """Certificate and key come together, and exist where they are used."""
    pair = ("tls_certificate", "tls_key")
    for field, other in (pair, pair[::-1]):
        if getattr(settings, other) and not getattr(settings, field):
            _refuse(settings, field, f"a path, as {other.upper()} is set: both or neither")
        if settings.tls_enabled and not getattr(settings, field):
            _refuse(settings, field, f"the path of a file, as HTTPS_PORT is {settings.https_port}")
        if settings.tls_enabled and _is_missing(getattr(settings, field)):
            _refuse(settings, field, f"a file that exists, as HTTPS_PORT is {settings.https_port}")
    if settings.https_port == settings.port:
        _refuse(settings, "https_port", "another port than PORT, which is the same")


def _is_missing(path: Path) -> bool:
    """Whether there is no such file. One that we may not look at is not missing: Apache reads keys while it is root."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        return False
    except OSError:
        return True


def _check_socket(settings: Settings) -> None:
    """The kernel has little room for a socket's path."""
    size = len(os.fsencode(settings.engine_socket))
    if size > SOCKET_PATH_MAX_BYTES:
        _refuse(settings, "engine_socket", f"a path of at most {SOCKET_PATH_MAX_BYTES} bytes; this one has {size}")


def _check_cache(settings: Settings) -> None:
    if settings.cache == "redis" and not settings.text("redis_url"):
        _refuse(settings, "cache", "auto, off or disk, as REDIS_URL is not set")


def _check_authorities(settings: Settings) -> None:
    """Each file of certificates is one, and is of use."""
    for field in AUTHORITIES:
        path = getattr(settings, field)
        if path is not None and _is_missing(path):
            _refuse(settings, field, "a file that exists")
        if path is not None and not _holds_certificates(path):
            _refuse(settings, field, "a PEM file with certificates")
    if settings.redis_ca_file and settings.text("redis_url") and not settings.redis_address.startswith(ENCRYPTED_REDIS):
        _refuse(settings, "redis_ca_file", "rediss:// in REDIS_URL beside it: without, nothing is encrypted")


def _holds_certificates(path: Path) -> bool:
    """Whether there is at least one in it. A file that only another user may read is taken for good."""
    import ssl  # few have such a file, and nobody else shall wait for this

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    except OSError:
        return True
    return True


def _check_ensemble(settings: Settings) -> None:
    """Each name is there once; and what is secret does not travel in clear."""
    names = [upstream.partition("=")[0] for upstream in settings.ensemble_upstreams]
    if len(set(names)) < len(names):
        _refuse(settings, "ensemble_upstreams", "each name once")
    for each in settings.ensemble_upstreams if settings.is_deployed and settings.text("ensemble_token") else ():
        url = urlsplit(each.partition("=")[2])
        if url.scheme != "https" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            _refuse(
                settings, "ensemble_upstreams", "https for other machines, as ENSEMBLE_TOKEN would be sent in clear"
            )


def _check_limits(settings: Settings) -> None:
    """No limit makes another one unreachable."""
    _refuse_above(settings, "request_timeout_seconds", "request_max_timeout_seconds")
    _refuse_above(settings, "images_max_bytes", "request_max_bytes")
    # A 0 is chosen for the machine, by app.host.sizing, which knows the others.
    if settings.engine_max_queue_size:
        _refuse_above(settings, "engine_max_batch_size", "engine_max_queue_size")
        _refuse_above(settings, "request_max_images", "engine_max_queue_size")
    threads = settings.web_processes * settings.web_threads
    if 0 < settings.server_max_connections < threads:
        _refuse(settings, "server_max_connections", f"at least WEB_PROCESSES × WEB_THREADS, which is {threads}")


def _refuse_above(settings: Settings, field: str, limit: str) -> None:
    if getattr(settings, field) > getattr(settings, limit):
        _refuse(settings, field, f"at most {limit.upper()}, which is {settings.text(limit)}")


def _refuse(settings: Settings, field: str, expected: str) -> NoReturn:
    _refuse_value(field, settings.text(field), settings.sources[field], expected)


if __name__ == "__main__":
    # The door that scripts and people know; what it shows is a command's matter.
    from app.cli.config import command

    command(prog_name="python -m app.config")


def log_mark() -> str:
    """What stands before each line of JSON that this process logs; empty where nobody reads it so."""
    return os.environ.get(LOG_MARK, "")


def host_address() -> str:
    """The IPv4 address of this container's host in the network that it will serve in; empty where nobody said so."""
    return os.environ.get(HOST_ADDRESS, "")
