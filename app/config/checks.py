"""What must fit together before the service starts."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from urllib.parse import urlsplit

from app.config import plugin_settings
from app.config.refusals import refuse
from app.config.schema import ENCRYPTED_REDIS, SECRETS, Settings
from app.config.values import SECRET_MIN_CHARACTERS, SOCKET_PATH_MAX_BYTES
from app.errors import SettingsError

SECRETS_DIRECTORY = Path("/run/secrets")
# Settings that name certificates of authorities.
AUTHORITIES = ("redis_ca_file", "ensemble_ca_file")
SECRET_MIN_DIFFERENT_CHARACTERS = 6
PLACEHOLDER_WORDS = re.compile(
    r"change|changeit|changeme|default|dev|development|dummy|example|fixme|for|here|insert|key|me|my|only|password|"
    r"placeholder|please|put|replace|replaceme|sample|secret|secretkey|test|this|todo|value|x+|your"
)
PLACEHOLDER_PHRASES = re.compile(r"change.?(me|this|it)|replace.?(me|this)|place.?holder")


def problem(settings: Settings) -> str:
    """Why the service may not start so, in one line; empty when it may."""
    try:
        check(settings)
    except SettingsError as error:
        return error.message
    return ""


def check(settings: Settings) -> None:
    _check_secrets(settings)
    _check_development_aids(settings)
    _check_tls(settings)
    _check_socket(settings)
    _check_limits(settings)
    _check_authorities(settings)
    for field, others in (("cache", "auto, off or disk"), ("state_store", "disk"), ("jobs_store", "auto or disk")):
        if getattr(settings, field) == "redis" and not settings.text("redis_url"):
            refuse(settings, field, f"{others}, as REDIS_URL is not set")
    if settings.jobs_webhook_hosts and not settings.jobs_webhook_secret.get_secret_value():
        refuse(
            settings,
            "jobs_webhook_secret",
            "a secret, as JOBS_WEBHOOK_HOSTS names some: unsigned, a message could be anybody's",
        )
    _check_ensemble(settings)
    plugin_settings.check(settings)


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
            refuse(settings, one.field, f"{one.expected}; this one {reason}")
    # An attacker who guesses it can sign as with the other one.
    value = settings.text("secret_key_fallback")
    if value and settings.is_deployed and (reason := weakness(value)):
        refuse(settings, "secret_key_fallback", f"a real secret or nothing; this one {reason}")


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
        refuse(settings, "reload", f"false in {settings.env}: code is loaded again in dev only")
    if settings.debug and settings.is_deployed:
        refuse(settings, "debug", f"false in {settings.env}: the debugger lets callers run code")


def _check_tls(settings: Settings) -> None:
    """Certificate and key come together, and exist where they are used."""
    pair = ("tls_certificate", "tls_key")
    for field, other in (pair, pair[::-1]):
        if getattr(settings, other) and not getattr(settings, field):
            refuse(settings, field, f"a path, as {other.upper()} is set: both or neither")
        if settings.tls_enabled and not getattr(settings, field):
            refuse(settings, field, f"the path of a file, as HTTPS_PORT is {settings.https_port}")
        if settings.tls_enabled and _is_missing(getattr(settings, field)):
            refuse(settings, field, f"a file that exists, as HTTPS_PORT is {settings.https_port}")
    if settings.http2 == "on" and not settings.tls_enabled:
        refuse(settings, "http2", "off, as HTTPS_PORT is 0: browsers speak it over TLS only")
    if settings.https_port == settings.port:
        refuse(settings, "https_port", "another port than PORT, which is the same")


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
        refuse(settings, "engine_socket", f"a path of at most {SOCKET_PATH_MAX_BYTES} bytes; this one has {size}")


def _check_authorities(settings: Settings) -> None:
    """Each file of certificates is one, and is of use."""
    for field in AUTHORITIES:
        path = getattr(settings, field)
        if path is not None and _is_missing(path):
            refuse(settings, field, "a file that exists")
        if path is not None and not _holds_certificates(path):
            refuse(settings, field, "a PEM file with certificates")
    if settings.redis_ca_file and settings.text("redis_url") and not settings.redis_address.startswith(ENCRYPTED_REDIS):
        refuse(settings, "redis_ca_file", "rediss:// in REDIS_URL beside it: without, nothing is encrypted")


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
        refuse(settings, "ensemble_upstreams", "each name once")
    for each in settings.ensemble_upstreams if settings.is_deployed and settings.text("ensemble_token") else ():
        url = urlsplit(each.partition("=")[2])
        if url.scheme != "https" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            refuse(settings, "ensemble_upstreams", "https for other machines, as ENSEMBLE_TOKEN would be sent in clear")


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
        refuse(settings, "server_max_connections", f"at least WEB_PROCESSES × WEB_THREADS, which is {threads}")


def _refuse_above(settings: Settings, field: str, limit: str) -> None:
    if getattr(settings, field) > getattr(settings, limit):
        refuse(settings, field, f"at most {limit.upper()}, which is {settings.text(limit)}")
