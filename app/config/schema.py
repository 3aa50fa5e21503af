"""The table of settings: each with its type, default, unit and one sentence. Reads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin
from urllib.parse import urlencode, urlsplit

from pydantic import Field, PrivateAttr, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from app.config.values import (
    SECRET_MIN_CHARACTERS,
    SOCKET_PATH_MAX_BYTES,
    DeviceName,
    Expected,
    Host,
    Hosts,
    ImageFormats,
    MemorySize,
    ModelNames,
    Networks,
    NetworksOrHost,
    OptionalPath,
    Origins,
    PathPrefix,
    PrefixedUrl,
    RateLimits,
    RedisUrl,
    RootedPath,
    SecretUrl,
    Upstreams,
    WebhookHosts,
)

ROOT = Path(__file__).resolve().parents[2]
ENCRYPTED_REDIS = "rediss:"


@dataclass(frozen=True)
class Span:
    """Bounds of a number, both included, and its unit."""

    least: float
    most: float | None
    unit: str = ""


def setting(
    default: Any,
    sentence: str,
    span: Span | None = None,
    *,
    expects: str = "",
    by_default: str = "",
    section: str = "",
    secret: bool = False,
    optional: bool = False,
) -> Any:
    """Declare one setting: its default, what it means, and the bounds of its number.

    ``expects`` says in words what is right where neither type nor bounds do, ``by_default`` what a computed default is.
    ``section`` opens a section of ``show`` and of the document; the settings that follow belong to it. ``secret``
    values are masked and may come from files; staging and prod require them, unless ``optional``.
    """
    about: dict[str, Any] = {
        "unit": span.unit if span else "",
        "expects": expects,
        "by_default": by_default,
        "section": section,
        "secret": secret,
        "required": secret and not optional,
    }
    start: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    bounds: dict[str, Any] = {"ge": span.least, "le": span.most} if span else {}
    return Field(**start, **bounds, description=sentence, json_schema_extra=about)


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
        section="Addresses and TLS",
    )
    port: int = setting(8000, "The port for plain HTTP.", Span(1, 65535))
    server_name: Host = setting(
        "localhost", "The host name callers use; requests for another host are refused.", expects="a host name"
    )
    server_aliases: Hosts = setting(
        "localhost,127.0.0.1,::1", "Further host names and addresses callers may use, besides SERVER_NAME."
    )
    https_port: int = setting(0, "The port for HTTPS; 0 is no TLS here.", Span(0, 65535))
    tls_certificate: OptionalPath = setting(None, "The certificate chain, a PEM file.")
    tls_key: OptionalPath = setting(None, "The certificate's private key, a PEM file.")
    hsts_seconds: int = setting(
        0, "How long browsers remember to use HTTPS only; 0 sends no such header.", Span(0, None, "seconds")
    )
    trusted_proxies: Networks = setting("", "Proxies whose word on the caller's address is taken; empty trusts none.")

    path_prefix: PathPrefix = setting(
        "", "The path below which callers find the service, where a proxy offers it below one; empty for none."
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
    )
    rate_limit_per_token: RateLimits = setting("", "How many requests a token may send; empty is as many as it likes.")
    rate_limit_per_address: RateLimits = setting(
        "", "How many requests an address may send, with a token or without; empty is as many as it likes."
    )
    cors_origins: Origins = setting(
        "", "Pages of which other origins may call from a browser, with a token. Empty is our own pages only."
    )

    state_dir: RootedPath = setting(
        "var",
        "The one folder that is written: sockets, caches, jobs, tokens. Back this up.",
        section="State and models",
    )
    redis_url: RedisUrl = setting(
        "",
        "A Redis for what several machines share: caches, limits, and jobs with JOBS_STORE=redis. Empty keeps all of it"
        " in files below STATE_DIR.",
        secret=True,
        optional=True,
    )
    redis_ca_file: OptionalPath = setting(
        None, "Certificates that vouch for a Redis with rediss://, a PEM file, besides those of the system."
    )
    models_dir: RootedPath = setting("models", "The model store, <name>/<version>/ below it.")
    models: ModelNames = setting("", "Models to serve, as name or name@version; empty is the newest version of each.")
    models_default: ModelNames = setting(
        "",
        "Models that answer requests which name none, the first of each task; empty is the one that was there first.",
        expects="names with commas between",
    )

    models_keep_previous_seconds: float = setting(
        900,
        "How long a version that serves no more stays loaded, so that a rollback is instant; 0 unloads it at once.",
        Span(0, 604800, "seconds"),
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
    engine_workers: int = setting(0, "Batches computed at the same time; 0 is by cores.", Span(0, 256))
    engine_nice: int = setting(
        5,
        "By how much the engine steps back when processor time is short, so that health and refusals come first.",
        Span(0, 19, "nice(2) levels"),
    )
    engine_torch_threads: int = setting(1, "Threads one batch is computed with.", Span(1, 256))
    device: DeviceName = setting(
        "auto",
        "What computes the models: auto is a GPU where there is one and torch was built for it, else the processor.",
    )
    runtime: Literal[
        "auto", "torch", "torch-channels-last", "torch-fused", "torch-graphs", "aotinductor", "openvino"
    ] = setting("auto", "What computes the models; auto is what `make model-build` chose, else torch.")
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = setting(
        "auto", "The precision models are computed in; auto is what `make model-build` chose, else fp32."
    )
    model_build: Literal["background", "off"] = setting(
        "off", "Whether the engine builds models that were not measured on this machine, beside serving them."
    )
    engine_max_batch_size: int = setting(
        0,
        "Most images in one batch; 0 is 4 on a processor, and on a GPU what `make model-build` measured as best.",
        Span(0, 1024, "images"),
    )
    engine_max_queue_delay_ms: float = setting(
        0, "Longest a request waits for others to join its batch.", Span(0, 10000, "milliseconds")
    )
    engine_max_queue_size: int = setting(
        0,
        "Images that may wait; beyond that callers get 503 at once. 0 is by engine workers.",
        Span(0, 100000, "images"),
    )
    engine_drain_seconds: float = setting(
        20, "Longest the engine finishes accepted work when it is told to stop.", Span(0, 3600, "seconds")
    )
    engine_hang_seconds: float = setting(
        10,
        "A process that gives no sign of life, or makes no progress, for so long is ended and replaced.",
        Span(1, 3600, "seconds"),
    )

    engine_self_test_seconds: float = setting(
        3600,
        "How often each model is asked its stored questions again while it serves; 0 only when it is loaded.",
        Span(0, 604800, "seconds"),
    )

    web_processes: int = setting(
        0, "Processes that answer requests; 0 is by cores and memory.", Span(0, 256), section="Web processes"
    )
    web_threads: int = setting(
        0, "Threads in each web process; so many requests at once. 0 is as many as suit.", Span(0, 1024)
    )

    server_max_connections: int = setting(
        0, "Connections Apache holds at once; 0 is by the web threads.", Span(0, 65536), section="Connections"
    )
    server_header_timeout_seconds: int = setting(
        10, "Longest a caller may take to send the header.", Span(1, 3600, "seconds")
    )
    server_body_timeout_seconds: int = setting(
        30, "Longest a caller may go without sending any of the body.", Span(1, 3600, "seconds")
    )
    server_shutdown_seconds: int = setting(30, "Longest a stop waits for requests in flight.", Span(0, 3600, "seconds"))

    request_timeout_seconds: float = setting(
        30,
        "The time a request has when its caller does not say.",
        Span(0.001, 3600, "seconds"),
        section="Requests and images",
    )
    request_max_timeout_seconds: float = setting(
        120, "The most time a caller may ask for.", Span(0.001, 3600, "seconds")
    )
    request_max_wait_seconds: float = setting(
        0.4,
        "A request that would wait longer than this for its answer is refused with 503, before its body is read.",
        Span(0.01, 3600, "seconds"),
    )
    request_microcache_ms: int = setting(
        250,
        "Answers of cheap routes (health, the list of models) are kept for so long; 0 keeps none.",
        Span(0, 10000, "milliseconds"),
    )
    request_max_bytes: int = setting(
        33554432, "The largest request body; larger ones get 413.", Span(1024, 2**31 - 1, "bytes")
    )
    request_memory_bytes: int = setting(
        0,
        "The memory that all requests together may hold: bodies, decoded images, what waits; 0 is by the machine's or"
        " the container's memory.",
        Span(0, 2**50, "bytes"),
    )
    request_max_images: int = setting(32, "Most images in one request; more get 413.", Span(1, 1024, "images"))
    images_max_bytes: int = setting(
        16777216, "The largest image file; larger ones get 413.", Span(1024, 2**31 - 1, "bytes")
    )
    images_max_pixels: int = setting(
        50000000,
        "The largest image, width times height; refused by its header, before it is decoded.",
        Span(1, 10**9, "pixels"),
    )
    images_max_side: int = setting(
        30000,
        "The longest side of an image, its width or its height; refused by its header, before it is decoded.",
        Span(1, 10**6, "pixels"),
    )
    images_max_decode_seconds: float = setting(
        10, "Longest that one image may take to be decoded; one that takes longer gets 422.", Span(0.1, 3600, "seconds")
    )
    images_formats: ImageFormats = setting("jpeg,png,webp", "Image formats that are decoded; others get 415.")

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
        Span(1, 64, "images"),
    )
    jobs_max_images: int = setting(1000, "Most images in one job; more get 413.", Span(1, 100000, "images"))
    jobs_max_bytes: int = setting(
        268435456, "The images of one job together, unpacked; more get 413.", Span(1024, 2**40, "bytes")
    )
    jobs_max_queued: int = setting(
        100, "Jobs that may wait or run; beyond that callers get 503.", Span(1, 100000, "jobs")
    )
    jobs_max_disk_bytes: int = setting(
        2147483648,
        "Most that all jobs may take below STATE_DIR, or in Redis; beyond that callers get 507.",
        Span(1024, 2**50, "bytes"),
    )
    jobs_keep_seconds: float = setting(
        86400, "How long the results of a job are kept after its end.", Span(1, 31536000, "seconds")
    )

    jobs_webhook_hosts: WebhookHosts = setting("", "Hosts that may receive a job's webhook; empty allows none.")
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
        section="Telemetry",
    )
    log_file: OptionalPath = setting(
        None, "Where `make serve` also keeps every line; empty keeps none. A container's lines are kept by its engine."
    )
    log_file_max_bytes: int = setting(
        20_000_000, "How large LOG_FILE may become before it is put aside.", Span(10_000, None, "bytes")
    )
    log_file_count: int = setting(5, "Files kept: LOG_FILE itself, LOG_FILE.1 and so on.", Span(1, 1000, "files"))
    alerts_repeat_seconds: float = setting(
        900,
        "The same fault is told at most once in so long, with a count of how often it happened.",
        Span(1, 604800, "seconds"),
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
        Span(0, 1),
        expects="a number from 0 to 1",
    )

    cache: Literal["auto", "off", "disk", "redis"] = setting(
        "auto",
        "Where answers are kept for equal images and options; auto is Redis where REDIS_URL is set, else disk.",
        section="Kept answers",
    )
    cache_seconds: int = setting(86400, "How long an answer is kept at most.", Span(1, 31536000, "seconds"))
    cache_max_bytes: int = setting(
        67108864,
        "The room that kept answers may take on disk; the oldest give way. Redis has a setting of its own.",
        Span(1048576, 2**40, "bytes"),
    )

    ensemble_upstreams: Upstreams = setting(
        "",
        "Other services of this API that POST /v1/ensemble asks, each with a name; no others are ever asked.",
        section="Ensembles",
    )
    ensemble_timeout_seconds: float = setting(
        5, "The time that each member has when the caller does not say.", Span(0.01, 3600, "seconds")
    )
    ensemble_ca_file: OptionalPath = setting(
        None, "Certificates that vouch for those services, a PEM file; empty is those of the system."
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
        section="Load test",
    )
    loadtest_ca_file: OptionalPath = setting(
        None, "Certificates that vouch for that address besides those of the system, a PEM file."
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
        0, "The highest rate a load test may reach; 0 is no bound.", Span(0, None, "requests per second")
    )

    container_memory: MemorySize = setting("2g", "Memory the container may use.", section="Container")
    container_cpus: float = setting(
        0, "Cores the container may use, such as 1.5; 0 is all of them.", Span(0, 4096, "cores")
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
        """The URL to connect to: REDIS_URL, with REDIS_CA_FILE where it is encrypted. Contains the password."""
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
        of_type = next((str(each) for each in self.info.metadata if isinstance(each, Expected)), "")
        if words := str(self._about["expects"]) or of_type:
            return words
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


def _declare() -> Iterator[Declaration]:
    section = ""
    for field, info in Settings.model_fields.items():
        if isinstance(info.json_schema_extra, dict):
            section = str(info.json_schema_extra["section"]) or section
            yield Declaration(field, info, section)


DECLARATIONS: Mapping[str, Declaration] = MappingProxyType({one.field: one for one in _declare()})
SECRETS = tuple(one for one in DECLARATIONS.values() if one.is_secret)
