"""The table of settings: each with its type, default, unit and one sentence. Reads nothing."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, get_type_hints
from urllib.parse import urlencode, urlsplit

from app.config.values import (
    PLAIN,
    SECRET_MIN_CHARACTERS,
    SOCKET_PATH_MAX_BYTES,
    DeviceName,
    Host,
    Hosts,
    ImageFormats,
    Kind,
    MemorySize,
    ModelNames,
    Networks,
    NetworksOrHost,
    OptionalPath,
    Origins,
    PathPrefix,
    PluginNames,
    PrefixedUrl,
    RateLimits,
    RedisUrl,
    RootedPath,
    SecretStr,
    SecretUrl,
    Upstreams,
    WebhookHosts,
    kind_of,
)

ROOT = Path(__file__).resolve().parents[2]
ENCRYPTED_REDIS = "rediss:"
# In lower case, as fields are: what plugins declare, see app.config.plugin_settings.
PLUGIN_PREFIX = "plugin_"
BOOLEAN = ("true", "false")


@dataclass(frozen=True)
class Span:
    """Bounds of a number, both included, and its unit."""

    least: float
    most: float | None
    unit: str = ""


@dataclass(frozen=True)
class Declaration:
    """One setting, as the table below declares it; the sentence below its field there says what it means.

    ``initial``: its default, a value, a text that is read like any other, or a function of the settings before it.
    ``span``: the bounds of its number. ``expects`` says in words what is right where neither type nor bounds do,
    ``by_default`` what a computed default is. ``section`` opens a section of ``show`` and of the document; the settings
    that follow belong to it. Secret values are masked and may come from files; staging and prod require them, unless
    they are optional. ``field`` and ``kind`` follow from where it stands.
    """

    initial: Any
    span: Span | None = None
    _: KW_ONLY
    expects: str = ""
    by_default: str = ""
    section: str = ""
    is_secret: bool = False
    is_optional: bool = False
    field: str = ""
    kind: Kind = PLAIN[str]

    @property
    def name(self) -> str:
        return self.field.upper()

    @property
    def sentence(self) -> str:
        """What it means: the docstring below its field."""
        return _sentences()[self.field]

    @property
    def unit(self) -> str:
        return self.span.unit if self.span else ""

    @property
    def is_required(self) -> bool:
        """Whether staging and prod do not start without it, or with a weak one."""
        return self.is_secret and not self.is_optional

    @property
    def default(self) -> str:
        """The default as it would stand in an env file, or how it is computed."""
        return self.by_default or _text(self.initial)

    @property
    def choices(self) -> tuple[str, ...]:
        """The right words, where a value (or each part of a list) is one of a few."""
        return self.kind.choices

    @property
    def expected(self) -> str:
        """What a right value is, in words that follow 'expected'."""
        if words := self.expects or self.kind.expected:
            return words
        if self.choices:
            return "true or false" if self.choices == BOOLEAN else "one of " + ", ".join(self.choices)
        return self._expected_number()

    def read(self, text: str | None, before: Mapping[str, Any]) -> Any:
        """The value of a text, or the default for None. Raises WrongValueError."""
        if text is None:
            text = _text(self.initial(before) if callable(self.initial) else self.initial)
        try:
            value = self.kind.read(text, before)
        except ValueError:
            raise WrongValueError(self.field) from None
        if (span := self.span) and not span.least <= value <= (math.inf if span.most is None else span.most):
            raise WrongValueError(self.field)
        return value

    def _expected_number(self) -> str:
        kind = "a whole number" if self.kind is kind_of(int) else "a number"
        span = self.span
        low, high = (_text(span.least), _text(span.most)) if span else ("", "")
        bounds = f"from {low} to {high}" if high else f"of at least {low}"
        return " ".join(part for part in (kind, f"of {self.unit}" if self.unit else "", bounds) if part)


# Not as such: what stands beside a field is of the field's type.
setting: Any = Declaration


class WrongValueError(ValueError):
    """The value of a setting is not right. ``field``: which one."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class Settings:
    """Every setting of this start, checked and frozen. Made by :func:`load`, never by hand.

    The environment variable of a field is its name in upper case.
    """

    root: Path  # the repository; not a setting: relative paths start here

    env: Literal["dev", "test", "staging", "prod"] = setting("dev", section="General")
    """Which environment this is; picks env/<ENV>.env. Also accepted: development, production."""
    secret_key: SecretStr = setting(
        "",
        by_default="a fixed key in dev and test, none in staging and prod",
        is_secret=True,
        expects=f"at least {SECRET_MIN_CHARACTERS} random characters, such as `openssl rand -hex 32` prints",
    )
    """Signs what the service hands out and takes back. Required in staging and prod."""
    secret_key_fallback: SecretStr = setting(
        "",
        is_secret=True,
        is_optional=True,
        expects=f"at least {SECRET_MIN_CHARACTERS} random characters, such as `openssl rand -hex 32` prints",
    )
    """A second key, for changing SECRET_KEY: what it has signed is taken too."""
    debug: bool = setting(False)
    """Show stack traces and the debugger in the browser. Refused in staging and prod."""
    reload: bool = setting(False)
    """Load the code again when a file changes. Only in dev."""
    log_level: Literal["debug", "info", "warning", "error"] = setting("info")
    """The least severe message that is logged."""
    log_format: Literal["text", "json"] = setting("text")
    """Lines for people (text) or for a log collector (json)."""

    listen_host: Host = setting("127.0.0.1", section="Addresses and TLS")
    """The address to listen on; 0.0.0.0 is all of IPv4, :: all of IPv6 and IPv4."""
    port: int = setting(8000, Span(1, 65535))
    """The port for plain HTTP."""
    server_name: Host = setting("localhost", expects="a host name")
    """The host name callers use; requests for another host are refused."""
    server_aliases: Hosts = setting("localhost,127.0.0.1,::1")
    """Further host names and addresses callers may use, besides SERVER_NAME."""
    https_port: int = setting(0, Span(0, 65535))
    """The port for HTTPS; 0 is no TLS here."""
    tls_certificate: OptionalPath = setting(None)
    """The certificate chain, a PEM file."""
    tls_key: OptionalPath = setting(None)
    """The certificate's private key, a PEM file."""
    http2: Literal["on", "off"] = setting("off")
    """Whether HTTPS also speaks HTTP/2; needs Apache 2.4.69 or later, and HTTPS_PORT."""
    hsts_seconds: int = setting(0, Span(0, None, "seconds"))
    """How long browsers remember to use HTTPS only; 0 sends no such header."""
    trusted_proxies: Networks = setting("")
    """Proxies whose word on the caller's address is taken; empty trusts none."""

    path_prefix: PathPrefix = setting("")
    """The path below which a proxy offers the service; empty for none."""

    authentication: Literal["required", "off"] = setting("required", section="Access")
    """Whether callers need a token of `flask token create`."""
    admin_networks: NetworksOrHost = setting("127.0.0.0/8,::1,container-host")
    """Who may read /status and the reasons of /readyz. container-host is the machine that a container runs on."""
    rate_limit_per_token: RateLimits = setting("")
    """How many requests a token may send; empty is no limit."""
    rate_limit_per_address: RateLimits = setting("")
    """How many requests an address may send, with a token or without; empty is no limit."""
    cors_origins: Origins = setting("")
    """Origins whose pages may call from a browser, with a token. Empty is our own only."""

    state_dir: RootedPath = setting("var", section="State and models")
    """The one folder that is written: sockets, caches, jobs, tokens. Back it up."""
    redis_url: RedisUrl = setting("", is_secret=True, is_optional=True)
    """A Redis for what several machines share: caches, limits, and tokens and jobs with STATE_STORE=redis."""
    redis_ca_file: OptionalPath = setting(None)
    """A PEM file of authorities for a Redis with rediss://, besides the system's."""
    state_store: Literal["disk", "redis"] = setting("disk")
    """Where tokens and jobs are: below STATE_DIR, or in REDIS_URL for several machines."""
    state_store_grace_seconds: float = setting(300, Span(0, 604800, "seconds"))
    """While the Redis of STATE_STORE is away, tokens read within this time are accepted."""
    models_dir: RootedPath = setting("models")
    """The model store, <name>/<version>/ below it."""
    models: ModelNames = setting("")
    """Models to serve, as name or name@version; empty is all, in their newest version."""
    models_default: ModelNames = setting("", expects="names with commas between")
    """Models that answer requests which name none, the first of each task; empty is the oldest."""

    models_keep_previous_seconds: float = setting(900, Span(0, 604800, "seconds"))
    """How long a replaced version stays loaded for an instant rollback; 0 unloads it at once."""

    engine_mode: Literal["service", "child", "in_process"] = setting("service", section="Engine")
    """Where models run: a service of Apache, a child of `flask run`, or in the web process."""
    engine_socket: RootedPath = setting(
        lambda data: data["state_dir"] / "run" / "engine.sock",
        by_default="<STATE_DIR>/run/engine.sock",
        expects=f"a path of at most {SOCKET_PATH_MAX_BYTES} bytes",
    )
    """The socket between web and engine."""
    engine_workers: int = setting(0, Span(0, 256))
    """Batches computed at the same time; 0 is by cores."""
    engine_nice: int = setting(5, Span(0, 19, "nice(2) levels"))
    """Levels of nice by which the engine steps back, so that health and refusals come first."""
    engine_torch_threads: int = setting(1, Span(1, 256))
    """Threads one batch is computed with."""
    device: DeviceName = setting("auto")
    """What computes the models; auto is a GPU that torch can use, else the processor."""
    runtime: Literal[
        "auto", "torch", "torch-channels-last", "torch-fused", "torch-graphs", "aotinductor", "openvino"
    ] = setting("auto")
    """What computes the models; auto is what `make model-build` chose, else torch."""
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = setting("auto")
    """The precision models are computed in; auto is what `make model-build` chose, else fp32."""
    model_code: Literal["on", "off"] = setting("on")
    """Whether models with code of their own (`model.py`) may run."""
    model_build: Literal["background", "off"] = setting("off")
    """Whether the engine builds models for this machine while it serves."""
    engine_max_batch_size: int = setting(0, Span(0, 1024, "images"))
    """Most images in one batch; 0 is 4 on a processor, on a GPU what `make model-build` found best."""
    engine_max_queue_delay_ms: float = setting(0, Span(0, 10000, "milliseconds"))
    """Longest a request waits for others to join its batch."""
    engine_max_queue_size: int = setting(0, Span(0, 100000, "images"))
    """Images that may wait; beyond that callers get 503. 0 is by engine workers."""
    engine_drain_seconds: float = setting(20, Span(0, 3600, "seconds"))
    """Longest the engine finishes accepted work when it is told to stop."""
    engine_hang_seconds: float = setting(10, Span(1, 3600, "seconds"))
    """A process that gives no sign of life, or makes no progress, for this long is replaced."""

    engine_self_test_seconds: float = setting(3600, Span(0, 604800, "seconds"))
    """How often a serving model is asked its stored questions again; 0 is only when loaded."""

    web_processes: int = setting(0, Span(0, 256), section="Web processes")
    """Processes that answer requests; 0 is by cores and memory."""
    web_threads: int = setting(0, Span(0, 1024))
    """Threads in each web process, each for one request; 0 is by cores."""

    server_max_connections: int = setting(0, Span(0, 65536), section="Connections")
    """Connections Apache holds at once; 0 is by the web threads."""
    server_header_timeout_seconds: int = setting(10, Span(1, 3600, "seconds"))
    """Longest a caller may take to send the header."""
    server_body_timeout_seconds: int = setting(30, Span(1, 3600, "seconds"))
    """Longest a caller may go without sending any of the body."""
    server_shutdown_seconds: int = setting(30, Span(0, 3600, "seconds"))
    """Longest a stop waits for requests in flight."""

    request_timeout_seconds: float = setting(30, Span(0.001, 3600, "seconds"), section="Requests and images")
    """The time a request has when its caller does not say."""
    request_max_timeout_seconds: float = setting(120, Span(0.001, 3600, "seconds"))
    """The most time a caller may ask for."""
    request_max_wait_seconds: float = setting(0.4, Span(0.01, 3600, "seconds"))
    """A request that would wait longer for its answer is refused with 503, before its body is read."""
    request_microcache_ms: int = setting(250, Span(0, 10000, "milliseconds"))
    """How long answers of cheap routes (health, the list of models) are kept; 0 keeps none."""
    request_max_bytes: int = setting(33554432, Span(1024, 2**31 - 1, "bytes"))
    """The largest request body; larger ones get 413."""
    request_memory_bytes: int = setting(0, Span(0, 2**50, "bytes"))
    """The memory that all requests together may hold; 0 is by that of machine or container."""
    request_max_images: int = setting(32, Span(1, 1024, "images"))
    """Most images in one request; more get 413."""
    images_max_bytes: int = setting(16777216, Span(1024, 2**31 - 1, "bytes"))
    """The largest image file; larger ones get 413."""
    images_max_pixels: int = setting(50000000, Span(1, 10**9, "pixels"))
    """The largest image, width times height; checked before it is decoded."""
    images_max_side: int = setting(30000, Span(1, 10**6, "pixels"))
    """The longest side of an image; checked before it is decoded."""
    images_max_decode_seconds: float = setting(10, Span(0.1, 3600, "seconds"))
    """Most processor time that one image may take to be decoded; beyond that it gets 422."""
    images_formats: ImageFormats = setting("jpeg,png,webp")
    """Image formats that are decoded; others get 415."""

    jobs: Literal["on", "off"] = setting("on", section="Background jobs")
    """Whether images can be left here to be predicted in the background."""
    jobs_store: Literal["auto", "disk", "redis"] = setting("auto")
    """Where jobs are: on disk, or in the Redis of REDIS_URL; auto is as STATE_STORE says."""
    jobs_in_flight: int = setting(1, Span(1, 64, "images"))
    """Images of jobs predicted at the same time; few, as waiting callers come first."""
    jobs_max_images: int = setting(1000, Span(1, 100000, "images"))
    """Most images in one job; more get 413."""
    jobs_max_bytes: int = setting(268435456, Span(1024, 2**40, "bytes"))
    """The images of one job together, unpacked; more get 413."""
    jobs_max_queued: int = setting(100, Span(1, 100000, "jobs"))
    """Jobs that may wait or run; beyond that callers get 503."""
    jobs_max_disk_bytes: int = setting(2147483648, Span(1024, 2**50, "bytes"))
    """Most that all jobs may take on disk or in Redis; beyond that callers get 507."""
    jobs_keep_seconds: float = setting(86400, Span(1, 31536000, "seconds"))
    """How long the results of a job are kept after its end."""

    jobs_webhook_hosts: WebhookHosts = setting("")
    """Hosts that may receive a job's webhook; empty allows none."""
    jobs_webhook_secret: SecretStr = setting(
        "",
        is_secret=True,
        is_optional=True,
        expects=f"at least {SECRET_MIN_CHARACTERS} random characters, such as `openssl rand -hex 32` prints",
    )
    """Signs webhooks."""

    metrics_allow: Networks = setting("", section="Telemetry")
    """Who may read /metrics besides this machine, such as the network of your Prometheus."""
    log_file: OptionalPath = setting(None)
    """Where `make serve` also writes every line; empty is nowhere."""
    log_file_max_bytes: int = setting(20_000_000, Span(10_000, None, "bytes"))
    """How large LOG_FILE may become before it is put aside."""
    log_file_count: int = setting(5, Span(1, 1000, "files"))
    """Files kept: LOG_FILE itself, LOG_FILE.1 and so on."""
    alerts_repeat_seconds: float = setting(900, Span(1, 604800, "seconds"))
    """The same fault is sent at most once in this time, with a count."""
    alerts_webhook_url: SecretUrl = setting(
        "", is_secret=True, is_optional=True, expects="an address such as https://hooks.example.org/services/…"
    )
    """A webhook for errors, as Slack takes them; empty sends none."""
    sentry_dsn: SecretUrl = setting(
        "", is_secret=True, is_optional=True, expects="a DSN such as https://key@sentry.example.org/1"
    )
    """Where Sentry takes errors; empty sends none."""
    traces_endpoint: SecretUrl = setting(
        "", is_secret=True, is_optional=True, expects="an address such as http://collector:4318/v1/traces"
    )
    """Where traces go by OTLP over HTTP; empty makes none."""
    traces_share: float = setting(0.1, Span(0, 1), expects="a number from 0 to 1")
    """How many of the requests whose caller did not decide are traced."""

    cache: Literal["auto", "off", "disk", "redis"] = setting("auto", section="Kept answers")
    """Where answers are kept; auto is Redis where REDIS_URL is set, else disk."""
    cache_seconds: int = setting(86400, Span(1, 31536000, "seconds"))
    """How long an answer is kept at most."""
    cache_max_bytes: int = setting(67108864, Span(1048576, 2**40, "bytes"))
    """The room that kept answers may take on disk; the oldest give way."""

    ensemble_upstreams: Upstreams = setting("", section="Ensembles")
    """Other services that POST /v1/ensemble may ask, each with a name."""
    ensemble_timeout_seconds: float = setting(5, Span(0.01, 3600, "seconds"))
    """The time that each member has when the caller does not say."""
    ensemble_ca_file: OptionalPath = setting(None)
    """A PEM file of authorities for those services; empty is the system's."""
    ensemble_token: SecretStr = setting(
        "", is_secret=True, is_optional=True, expects="a token as `flask token create` prints it there"
    )
    """The API token that is shown to those services."""

    plugins_dir: RootedPath = setting("plugins", section="Plugins")
    """The folder of your own Flask code, with one folder for each plugin."""
    plugins: PluginNames = setting("")
    """Plugins to serve, with commas between; empty is all that are there."""
    plugins_on_error: Literal["stop", "skip"] = setting("stop")
    """What a broken plugin does: stop ends the start, skip serves without it."""

    loadtest_host: PrefixedUrl = setting(
        lambda data: f"http://127.0.0.1:{data['port']}", by_default="http://127.0.0.1:<PORT>", section="Load test"
    )
    """The one address that may be load tested from here."""
    loadtest_ca_file: OptionalPath = setting(None)
    """A PEM file of authorities for that address, besides the system's."""
    loadtest_token: SecretStr = setting(
        "", is_secret=True, is_optional=True, expects="a token as `flask token create` prints it"
    )
    """The token that a load test sends, with the scopes predict and admin."""
    loadtest_allow: Literal["yes", "confirm", "no"] = setting("no")
    """Whether a load test may run: yes, only after a person confirms, or no."""
    loadtest_max_rps: int = setting(0, Span(0, None, "requests per second"))
    """The highest rate a load test may reach; 0 is no bound."""

    container_memory: MemorySize = setting("2g", section="Container")
    """Memory the container may use."""
    container_cpus: float = setting(0, Span(0, 4096, "cores"))
    """Cores the container may use, such as 1.5; 0 is all of them."""

    _sources: Mapping[str, str]
    _plugin_readings: Mapping[str, Reading]

    def __init__(
        self,
        root: Path,
        texts: Mapping[str, str],
        sources: Mapping[str, str] = MappingProxyType({}),
        plugin_readings: Mapping[str, Reading] = MappingProxyType({}),
    ) -> None:
        """Read every setting from its text, else take its default. Raises WrongValueError for the first wrong one."""
        values: dict[str, Any] = {"root": root}
        for field, declaration in DECLARATIONS.items():
            values[field] = declaration.read(texts.get(field), values)
        self.__dict__.update(values, _sources=dict(sources), _plugin_readings=dict(plugin_readings))

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same settings but for some values, which are taken as they are."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, **update)
        return copy

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"settings are frozen; {name} cannot be set")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__[field] for field in DECLARATIONS))

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{field}={self.__dict__[field]!r}' for field in DECLARATIONS)})"

    @property
    def sources(self) -> Mapping[str, str]:
        """Field name → where its value came from: environment, file PATH, env/prod.env:LINE or default."""
        return MappingProxyType(self._sources)

    @property
    def plugin_readings(self) -> Mapping[str, Reading]:
        """What is set for plugins, by name in lower case; see app.config.plugin_settings."""
        return MappingProxyType(self._plugin_readings)

    @property
    def is_deployed(self) -> bool:
        """Whether this is staging or prod, where strangers may call and secrets must be real."""
        return self.env in ("staging", "prod")

    @property
    def silence_seconds(self) -> float:
        """For how long Apache waits for the first byte of an answer, or for the next one, before it gives up."""
        return self.request_max_timeout_seconds + self.server_body_timeout_seconds

    @property
    def tls_enabled(self) -> bool:
        """Whether this server itself speaks HTTPS."""
        return self.https_port > 0

    @property
    def redis_address(self) -> str:
        """The URL to connect to: REDIS_URL, with REDIS_CA_FILE where it is encrypted. Contains the password."""
        url = self.redis_url.get_secret_value()
        if self.redis_ca_file is None or not url.startswith(ENCRYPTED_REDIS):
            return url
        return f"{url}?{urlencode({'ssl_ca_certs': str(self.redis_ca_file)})}"

    @property
    def are_jobs_shared(self) -> bool:
        """Whether jobs lie in Redis."""
        return (self.state_store if self.jobs_store == "auto" else self.jobs_store) == "redis"

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


@functools.cache
def _sentences() -> dict[str, str]:
    """Field → the docstring below it. Read when somebody asks, not at each start."""
    (table,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(table, ast.ClassDef)
    found = {}
    for pair in itertools.pairwise(table.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str() as sentence)):
                found[field] = " ".join(sentence.split())
    return found


def _declare() -> Iterator[Declaration]:
    section = ""
    for field, annotation in get_type_hints(Settings, include_extras=True).items():
        if isinstance(declared := vars(Settings).get(field), Declaration):
            section = declared.section or section
            yield replace(declared, field=field, kind=kind_of(annotation), section=section)


DECLARATIONS: Mapping[str, Declaration] = MappingProxyType({one.field: one for one in _declare()})
SECRETS = tuple(one for one in DECLARATIONS.values() if one.is_secret)
