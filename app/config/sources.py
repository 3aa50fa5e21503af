"""Where settings come from: the environment, files of secrets, env files, defaults; the first that has one counts.

The only reader of the environment.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from app.config import secret_files
from app.config.checks import SECRETS_DIRECTORY, check
from app.config.refusals import refuse_name, refuse_value, shown
from app.config.schema import DECLARATIONS, PLUGIN_PREFIX, ROOT, SECRETS, Layer, Reading, Settings, WrongValueError
from app.errors import SettingsError
from app.storage import files

ENVIRONMENTS = ("dev", "test", "staging", "prod")
OTHER_NAMES = {"development": "dev", "production": "prod"}
LOCAL_FILE = "env/local.env"
# Settings that are gone: accepted without effect for one release, and named by `flask config check` and in the log.
REMOVED = frozenset(
    (
        *("ALERTS_EMAIL_TO", "ALERTS_EMAIL_FROM", "ALERTS_SMTP_HOST", "ALERTS_SMTP_PORT", "ALERTS_SMTP_SECURITY"),
        *("ALERTS_SMTP_CA_FILE", "ALERTS_SMTP_USER", "ALERTS_SMTP_PASSWORD", "ALERTS_SMTP_PASSWORD_FILE"),
    )
)
# Before each line of a service that Apache started: apache/json_lines.py knows ours by it, and takes it away.
LOG_MARK = "CASK_LOG_MARK"
# What docker/steps tell the container: the address by which its host will call it.
HOST_ADDRESS = "CASK_HOST_ADDRESS"
# And that of the edge, which hands requests on to it (docs/decisions/0069-edge.md).
EDGE_ADDRESS = "CASK_EDGE_ADDRESS"
# A name in the environment that starts so can only be meant for us; anything else there may belong to other software.
# LOG_, TLS_, CONTAINER_, MODELS_ and REDIS_ are left out: podman reads CONTAINER_HOST, and many programs read LOG_…,
# TLS_… and REDIS_….
OUR_PREFIXES = (
    *("ALERTS_", "AUTHENTICATION", "CORS_", "ENGINE_", "ENSEMBLE_", "HSTS_", "IMAGES_", "JOBS_", "LOADTEST_"),
    *("METRICS_", "PLUGINS_", "RATE_", "REQUEST_", "SERVER_", "TRACES_", "WEB_"),
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
# docker/steps/common.sh has the same two.
COMMENT_LINE = re.compile(r"[ \t]*(#[^\r\0]*)?")

# What Windows' editors put before the first character of a file.
BYTE_ORDER_MARK = "\ufeff"

# For dev and test, so that a fresh checkout starts; staging and prod never see it.
DEVELOPMENT_KEY = "for-development-only"


T = TypeVar("T")


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
    check(settings)
    return settings


def resolve(
    environ: Mapping[str, str] = os.environ, root: Path = ROOT, secrets_directory: Path = SECRETS_DIRECTORY
) -> Settings:
    """Like :func:`load`, without asking whether the values fit together and the secrets are real. For looking only."""
    return _resolve(Sources(environ, root, secrets_directory), _Faults(None))


def resolve_known(place: Sources, *needed: str) -> tuple[Settings, list[str]]:
    """What can be read where a setting is wrong, and what is wrong, a line each: for what an operator has to do then.

    Raises SettingsError where one of ``needed``, the fields that a command goes by, may be among what is wrong.
    """
    found: list[tuple[str, str]] = []
    settings = _resolve(place, _Faults(found))
    for name in (field.upper() for field in needed if settings.sources[field] != "environment"):
        for message, about in found:
            if not about or name in about + message:
                raise SettingsError(message, hint=f"{name} may be meant: mend it, or say {name}=… in the command.")
    return settings, [message for message, _ in found]


class _Faults:
    """What is wrong: raised at once, or collected, each with the text that it is about (empty: it may be any)."""

    def __init__(self, found: list[tuple[str, str]] | None) -> None:
        self._found = found

    def collect(self, error: SettingsError, about: str) -> None:
        """Note it, and go on without. Raises it where nothing is collected."""
        if self._found is None:
            raise error
        self._found.append((error.message, about))

    def without(self, read: Callable[[], T], instead: T, about: str) -> T:
        """What is read, or ``instead`` of what is wrong."""
        try:
            return read()
        except SettingsError as error:
            self.collect(error, about)
            return instead


def _resolve(place: Sources, faults: _Faults) -> Settings:
    environ, root, usual = place
    faults.without(lambda: _refuse_windows_lines(environ), None, "the environment")
    env = faults.without(lambda: _choose_environment(environ), Reading("dev", "default"), "")
    faults.without(lambda: _refuse_unknown_names(environ), None, "the environment")
    here = _read_environment(environ)
    none: Layer = {}
    named = faults.without(lambda: secret_files.named(environ, root, besides=here), none, "a secret")
    folder = faults.without(lambda: secret_files.folder(environ, root, usual), usual, "a secret")
    below = faults.without(lambda: secret_files.below(folder, besides={**here, **named}), none, "a secret")
    files = (_read_env_file(root, name, faults) for name in (LOCAL_FILE, f"env/{env.value}.env"))
    return _build(root, ({"env": env}, here, named, below, *files, _development_secrets(env.value)), faults)


def describe(env: str, root: Path = ROOT) -> Settings:
    """One environment as the repository describes it: without this machine's environment, secrets and local.env."""
    chosen = _choose_environment({"ENV": env})
    return _build(root, ({"env": chosen}, read_env_file(root, f"env/{chosen.value}.env")), _Faults(None))


def _build(root: Path, layers: Sequence[Layer], faults: _Faults) -> Settings:
    readings = {name: reading for layer in reversed(layers) for name, reading in layer.items()}
    texts = {name: each.value for name, each in readings.items() if not _is_of_plugin(name)}
    sources = {name: readings[name].source if name in readings else "default" for name in DECLARATIONS}
    of_plugins = {name: each for name, each in readings.items() if _is_of_plugin(name)}
    try:
        return Settings(root, texts, sources, of_plugins)
    except WrongValueError as error:
        field, wrong = error.field, readings[error.field]
        faults.without(lambda: refuse_value(field, wrong.value, wrong.source), None, field.upper())
        others = [{name: each for name, each in layer.items() if each is not wrong} for layer in layers]
        return _build(root, others, faults)


def _is_of_plugin(field: str) -> bool:
    """Whether it is for a plugin to declare; `check` asks them."""
    return field.startswith(PLUGIN_PREFIX) and field not in DECLARATIONS


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
            lines = _lines(root / name)
        except (OSError, UnicodeDecodeError):
            continue
        given = given or next((line.partition("=")[2] for line in lines if line.startswith("LOG_FORMAT=")), "")
    return "json" if given.strip() == "json" else "text"


def removed(environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> list[str]:
    """The names of settings that are given, here or in ``env/local.env``, and have no effect any more."""
    return sorted(REMOVED & (given_locally(root) | {name for name in environ if environ[name]}))


def given_locally(root: Path = ROOT) -> set[str]:
    """The names that ``env/local.env`` gives a value, whether they are settings or not."""
    path = root / LOCAL_FILE
    lines = _lines(path) if path.is_file() else []
    return {name for name, _, value in (line.partition("=") for line in lines) if value.strip()}


def log_mark() -> str:
    """What stands before each line of JSON that this process logs; empty where nobody reads it so."""
    return os.environ.get(LOG_MARK, "")


def host_address() -> str:
    """The IPv4 address of this container's host in the network that it will serve in; empty where nobody said so."""
    return os.environ.get(HOST_ADDRESS, "")


def edge_address() -> str:
    """The IPv4 address of the edge before this container; empty where none is."""
    return os.environ.get(EDGE_ADDRESS, "")


def _choose_environment(environ: Mapping[str, str]) -> Reading:
    given = environ.get("ENV", "")
    env = OTHER_NAMES.get(given, given) or "dev"
    if env not in ENVIRONMENTS:
        refuse_value("env", given, "environment")
    return Reading(env, "environment" if given else "default")


def _refuse_windows_lines(environ: Mapping[str, str]) -> None:
    """What a shell or podman makes of a file with the line ends, or the first mark, of Windows' editors."""
    for name, value in environ.items():
        bare = name.removeprefix(BYTE_ORDER_MARK)
        is_ours = bare.isupper() and (bare.lower() in DECLARATIONS or _is_of_plugin(bare.lower()))
        if is_ours and (bare != name or value.endswith("\r")):
            what = "its name begins with a byte order mark" if bare != name else "it ends with a carriage return"
            raise SettingsError(
                f"{bare} is {shown(bare, value)} (from the environment), but {what}; expected a file with the lines of"
                " Unix, where a shell or podman reads it: sed -i '1s/^\\xef\\xbb\\xbf//; s/\\r$//' FILE"
            )


def _refuse_unknown_names(environ: Mapping[str, str]) -> None:
    files = {f"{one.name}_FILE" for one in SECRETS}
    for name in sorted(environ):
        if not environ[name] or not name.startswith(OUR_PREFIXES) or FOREIGN_NAMES.fullmatch(name):
            continue
        if name.lower() not in DECLARATIONS and name not in files | REMOVED:
            refuse_name(name, environ[name], "environment")


def _read_environment(environ: Mapping[str, str]) -> Layer:
    names = {one.name: field for field, one in DECLARATIONS.items() if field != "env"}
    names |= {name: name.lower() for name in environ if name.isupper() and _is_of_plugin(name.lower())}
    return {field: Reading(environ[name], "environment") for name, field in names.items() if environ.get(name)}


def read_env_file(root: Path, name: str) -> Layer:
    """Field → what an env file sets; an empty value is not set. Raises SettingsError."""
    return _read_env_file(root, name, _Faults(None))


def _read_env_file(root: Path, name: str, faults: _Faults) -> Layer:
    if name == LOCAL_FILE and not os.path.lexists(root / name):
        return {}
    try:
        lines = _lines(root / name)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        faults.collect(SettingsError(f"{name} cannot be read ({reason}); expected an env file in {root}."), "")
        return {}
    layer: dict[str, Reading] = {}
    for number, line in enumerate(lines, 1):
        source = f"{name}:{number}"
        if found := faults.without(functools.partial(_read_line, line, source, layer), None, line):
            field, reading = found
            layer[field] = reading
    return {field: reading for field, reading in layer.items() if reading.value and field != "env"}


def _lines(path: Path) -> list[str]:
    """Those that every reader sees: no other end of a line than \\n and \\r\\n. Raises OSError, UnicodeDecodeError."""
    data = files.read(path, secret_files.MOST_BYTES).decode("utf-8-sig")
    return data.replace("\r\n", "\n").split("\n")


def _read_line(line: str, source: str, before: Layer) -> tuple[str, Reading] | None:
    """Field and value of one line, None for a comment. Raises SettingsError."""
    if COMMENT_LINE.fullmatch(line):
        return None
    _refuse_unless_plain(line, source)
    name, _, value = line.partition("=")
    if name in REMOVED:
        return None
    if name.lower() not in DECLARATIONS and not _is_of_plugin(name.lower()):
        refuse_name(name, value, source)
    if name.lower() in before:
        first = before[name.lower()].source
        raise SettingsError(
            f"{name} is {shown(name, value)} (from {source}), but {first} sets it too; expected it once."
        )
    if name == "ENV" and source.rpartition(":")[0] != f"env/{value}.env":
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
