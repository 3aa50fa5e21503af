"""Secrets, certificates and tokens."""

from __future__ import annotations

import math
import os
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from app import config
from app.auth import stores, tokens
from app.cli import checks
from app.cli.checks import Finding, Surroundings, ask, fail, ok, warn
from app.errors import StateUnusableError
from app.host import certificates as pairs
from app.host.permissions import READ

SOON_DAYS = 30
DAY_SECONDS = 86400
OTHERS = stat.S_IRWXO


def secrets(here: Surroundings) -> Iterator[Finding]:
    """Each secret: there, no placeholder, and for few eyes only."""
    unset = [one.name for one in config.SECRETS if not one.is_required and not here.settings.text(one.field)]
    for one in config.SECRETS:
        if one.name not in unset:
            yield _secret(here, one)
    if unset:
        yield ok("Secret", f"not set, and needed for their features only: {', '.join(unset)}")


def _secret(here: Surroundings, one: config.Declaration) -> Finding:
    settings, subject = here.settings, "Secret"
    value, source = settings.text(one.field), settings.sources.get(one.field, "default")
    make = "openssl rand -hex 32 prints one; see docs/operations.md, Secret missing or weak."
    if not value:
        if checks.is_foreign_root():
            return warn(subject, f"{one.name}: {checks.ROOT_WORDS}", checks.ROOT_NEXT)
        if one.is_required and settings.is_deployed:
            return fail(subject, f"{one.name}: not set", make)
        return ok(subject, f"{one.name}: not set, and {settings.env} needs none")
    if value == config.DEVELOPMENT_KEY:
        return ok(subject, f"{one.name}: the one for development, which {settings.env} may use")
    reason = config.weakness(value) if one.is_required else ""
    if reason:
        verdict = fail if settings.is_deployed else warn
        return verdict(subject, f"{one.name}, from {source}: it {reason}", make)
    path = Path(source.removeprefix("file ")) if source.startswith("file ") else None
    if path and path.parent != config.SECRETS_DIRECTORY and path.stat().st_mode & OTHERS and _is_open(path.parent):
        return warn(subject, f"{one.name}: {path} can be read by every user of this machine", _narrow(here, path))
    if path and path.parent == checks.CONTAINER_SECRETS:
        return ok(
            subject, f"{one.name}: {len(value)} characters, from {path}, for containers; elsewhere {one.name}_FILE"
        )
    return ok(subject, f"{one.name}: {len(value)} characters, from {source}")


def _narrow(here: Surroundings, path: Path) -> str:
    """How a file is for who serves and nobody else but its owner: 600 alone would shut out the service."""
    if path.stat().st_uid == here.user.uid:
        return f"chmod 600 {path}"
    return f"chgrp {here.user.gid} {path} && chmod 640 {path} (the group of {here.user.name}, who serves)"


def _is_open(folder: Path) -> bool:
    """Whether others get through to what lies there."""
    return all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))


def certificates(here: Surroundings) -> Iterator[Finding]:
    """Certificate and key: readable, a pair, for our name, and valid for some time yet."""
    settings = here.settings
    certificate, key = settings.tls_certificate, settings.tls_key
    if not settings.tls_enabled or certificate is None or key is None:
        if settings.is_deployed and not settings.trusted_proxies:
            yield warn(
                "TLS",
                "off, and no proxy is named that has it",
                "Set HTTPS_PORT, or TRUSTED_PROXIES; see docs/administration.md, TLS.",
            )
        else:
            yield ok("TLS", "off here")
        return
    if here.user.uid != os.getuid():
        # Root without capabilities, as in a container, cannot say whether who serves may read them.
        for path in filter(Path.is_file, (certificate, key)):
            path.open("rb").close()
    fault = pairs.pair_fault(certificate, key)
    if fault:
        yield fail("TLS key", fault, "Put certificate and key of one pair there: TLS_CERTIFICATE, TLS_KEY.")
        return
    if not here.user.may(READ, key):
        yield fail("TLS key", f"{here.user.name} may not read {key}", _narrow(here, key))
    elif key.stat().st_mode & OTHERS:
        yield warn("TLS key", f"{key} can be read by every user of this machine", _narrow(here, key))
    else:
        yield ok("TLS key", f"{key.name} belongs to {certificate.name}")
    yield from _validity(certificate, settings)


def _validity(certificate: Path, settings: config.Settings) -> Iterator[Finding]:
    found = pairs.validity(certificate)
    if found is None:
        yield warn(
            "TLS certificate", "how long it is valid cannot be looked at without openssl", "apt-get install openssl"
        )
        return
    now, renew = time.time(), "Renew it, put it in its place, then make reload; see docs/administration.md, TLS."
    days = (found.ends - now) / DAY_SECONDS
    begins, ends = (time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment)) for moment in found)
    if now < found.begins:
        yield fail("TLS certificate", f"not valid before {begins}", "Look at the clock of this machine.")
    elif days < 0:
        yield fail("TLS certificate", f"expired {-days:.0f} days ago, on {ends}", renew)
    elif days < SOON_DAYS:
        yield warn("TLS certificate", f"expires in {days:.0f} days, on {ends}", renew)
    else:
        yield ok("TLS certificate", f"valid for {days:.0f} days more")
    _, words = ask(("openssl", "x509", "-in", certificate, "-noout", "-checkhost", settings.server_name))
    if "does NOT match" in words:
        yield warn(
            "TLS certificate",
            f"it is not for the name {settings.server_name}",
            "Set SERVER_NAME, or have one made for that name.",
        )


def authorities(here: Surroundings) -> Iterator[Finding]:
    """Certificates by which we know others: for who serves to read, and valid for some time yet."""
    named = [(name.upper(), path) for name in config.AUTHORITIES if (path := getattr(here.settings, name))]
    for name, path in named:
        yield _authority(here, name, path)
    if not named:
        yield ok("CA files", "none named; others are known by the authorities of this system")


def _authority(here: Surroundings, name: str, path: Path) -> Finding:
    subject, mend = "CA files", f"Put the authority's certificate there, as PEM: {name}."
    if not path.is_file():
        return fail(subject, f"{name}: there is no file {path}", mend)
    if here.user.first_closed(path.parent) or not here.user.may(READ, path):
        return fail(subject, f"{name}: {here.user.name} may not read {path}", f"chmod a+r {path}, and a+x its folders")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        return fail(subject, f"{name}: {path} holds no certificate", mend)
    ends = [ssl.cert_time_to_seconds(str(cert["notAfter"])) for cert in context.get_ca_certs()]
    days = (min(ends, default=math.inf) - time.time()) / DAY_SECONDS
    if days < 0:
        return fail(subject, f"{name}: a certificate in {path} has expired {-days:.0f} days ago", mend)
    if days < SOON_DAYS:
        return warn(subject, f"{name}: a certificate in {path} expires in {days:.0f} days", mend)
    return ok(subject, f"{name}: {len(ends)} of an authority in {path.name}")


def api_tokens(here: Surroundings) -> Iterator[Finding]:
    """Where tokens are asked for: whether anybody has one, and which will expire soon."""
    settings, make = here.settings, "flask token create NAME"
    if settings.authentication == "off":
        if settings.is_deployed:
            yield warn(
                "Tokens", "AUTHENTICATION is off: whoever reaches the service may use it", "AUTHENTICATION=required"
            )
        else:
            yield ok("Tokens", f"not asked for in {settings.env}")
        return
    try:
        valid = _valid_tokens(settings)
    except StateUnusableError as error:
        yield warn("Tokens", error.message, "See what is said of Redis, or of STATE_DIR.")
        return
    soon = time.time() + SOON_DAYS * DAY_SECONDS
    ending = [each.name for each in valid if each.expires is not None and each.expires < soon]
    if not valid:
        yield warn("Tokens", "asked for, and nobody has a valid one", make)
    elif ending:
        yield warn("Tokens", f"{', '.join(ending)} will expire within {SOON_DAYS} days", make + ", and hand it over")
    else:
        yield ok("Tokens", f"{len(valid)} valid")


def _valid_tokens(settings: config.Settings) -> list[tokens.Token]:
    # Looked for first: opening the file would make it.
    if settings.state_store == "disk" and not (settings.state_dir / tokens.FILE_NAME).exists():
        return []
    store, now = stores.store(settings), time.time()
    try:
        return [each for each in store.all() if each.state(now) == "valid"]
    finally:
        store.close()
