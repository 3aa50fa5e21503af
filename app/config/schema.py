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
    device: DeviceName = setting(
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
        "Hosts that may receive a job's webhook; empty allows none.",
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
