"""May the service read and write what it needs, is there room, and are the models what they say?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.cli.checks import Finding, Surroundings, fail, megabytes, ok, warn
from app.errors import CaskError
from app.host import machine
from app.host.permissions import ENTER, READ, WRITE, deepest_existing
from app.models import builds, manifests
from app.models.manifests import Manifest
from app.storage import files

LEAST_BYTES, FEW_BYTES = 200e6, 1e9
FEW_FILES = 10_000
# Bodies on their way lie in temporary files.
SPOOLED_BODIES = 4


def checkout(here: Surroundings) -> Iterator[Finding]:
    """Whether the service user may read the code."""
    closed = here.user.first_closed(here.root)
    if closed:
        yield fail("Checkout", f"{here.user.name} may not enter {closed}", f"chmod o+x {closed}, or set SERVICE_USER")
        return
    unreadable = [
        name
        for name in ("flask.wsgi", "app/factory.py", "apache/ops.wsgi")
        if not here.user.may(READ, here.root / name)
    ]
    if unreadable:
        yield fail(
            "Checkout",
            f"{here.user.name} may not read {', '.join(unreadable)}",
            f"chmod -R o+rX {here.root}/app {here.root}/apache",
        )
    else:
        yield ok("Checkout", f"{here.user.name} may read {here.root}")


def state(here: Surroundings) -> Iterator[Finding]:
    """Whether STATE_DIR can be written by who serves; it is made at the start where it is missing."""
    path = here.settings.state_dir
    there = deepest_existing(path)
    if closed := here.user.first_closed(there):
        yield fail("State", f"{here.user.name} may not enter {closed}, on the way to {path}", f"chmod o+x {closed}")
    elif there != path:
        if os.access(there, os.W_OK):
            yield ok("State", f"{path} is made at the first start")
        else:
            yield fail(
                "State",
                f"{path} is missing, and {there} cannot be written",
                f"mkdir -p {path}, as who starts the service",
            )
    elif not here.user.may(READ | WRITE | ENTER, path):
        # Started as root, the start gives the folder to the service user.
        if os.getuid() == 0:
            yield ok("State", f"{path} is given to {here.user.name} at the start")
        else:
            yield fail("State", f"{here.user.name} may not write {path}", f"chown -R {here.user.name} {path}")
    elif foreign := _foreign(here, path):
        yield warn("State", f"{here.user.name} may not write {foreign}", f"chown {here.user.name} {foreign}")
    else:
        yield ok("State", f"{here.user.name} may write {path}")


def state_files(here: Surroundings) -> Iterator[Finding]:
    """Whether the files that nobody could make again are whole, and of this release."""
    from app.storage import state_files as files_of_state

    if here.settings.state_dir.is_dir() and not os.access(here.settings.state_dir, os.R_OK | os.X_OK):
        # The check of the folder tells it.
        return
    try:
        files_of_state.check(here.settings.state_dir)
    except CaskError as error:
        yield fail("State files", error.message, error.hint)
    else:
        yield ok("State files", "whole, and of this release")


def _foreign(here: Surroundings, path: Path) -> Path | None:
    """A file of ours there that the service cannot write, such as one that a command of root has made."""
    return next((each for each in sorted(path.glob("*.sqlite3*")) if not here.user.may(READ | WRITE, each)), None)


def disk(here: Surroundings) -> Iterator[Finding]:
    """Room for state, and for bodies on their way."""
    least_spool = SPOOLED_BODIES * here.settings.request_max_bytes
    places = (
        (here.settings.state_dir, LEAST_BYTES, FEW_BYTES),
        (Path(tempfile.gettempdir()), least_spool, 2 * least_spool),
    )
    for path, least, few in places:
        found = os.statvfs(deepest_existing(path))
        free = found.f_bavail * found.f_frsize
        said = f"{megabytes(free)} free for {path}"
        if free < least:
            yield fail("Disk", said, f"Make room: at least {megabytes(least)} are needed.")
        elif free < few:
            yield warn("Disk", said, f"Make room: {megabytes(few)} are better.")
        elif found.f_files and found.f_favail < FEW_FILES:
            yield warn("Disk", f"{found.f_favail} files can still be made for {path}", "Remove files there.")
        else:
            yield ok("Disk", said)


def models(here: Surroundings) -> Iterator[Finding]:
    """Whether each model that is served has the weights of its manifest, and the service may read them."""
    try:
        chosen = manifests.choose(here.settings.models_dir, here.settings.models)
    except CaskError as error:
        yield fail("Models", error.message, error.hint or "flask model list")
        return
    for name, version in chosen:
        try:
            manifest = manifests.read(here.settings.models_dir / name / version)
        except CaskError as error:
            yield fail("Model", f"{name}@{version}: {error.message}", error.hint or "flask model list")
        else:
            yield _model(here, manifest)


def _model(here: Surroundings, manifest: Manifest) -> Finding:
    subject, path = "Model", manifest.weights_path
    if not path.exists():
        return fail(subject, f"{manifest.key}: {path} is missing", "Put the weights there, or make model-add")
    if closed := here.user.first_closed(path.parent):
        return fail(subject, f"{manifest.key}: {here.user.name} may not enter {closed}", f"chmod o+x {closed}")
    if not here.user.may(READ, path):
        return fail(subject, f"{manifest.key}: {here.user.name} may not read {path}", f"chmod o+r {path}")
    try:
        digest = files.sha256(path, files.most_weights())
    except OSError as error:
        words = f"{manifest.key}: {path} cannot be read: {files.reason(error)}"
        return fail(subject, words, "Put the weights there, or make model-add")
    if digest != manifest.sha256:
        return fail(
            subject,
            f"{manifest.key}: {path.name} has the SHA-256 {digest[:12]}…; the manifest says {manifest.sha256[:12]}…",
            "Find out who changed it; then make model-add again, or put the right file back.",
        )
    return ok(
        subject,
        f"{manifest.key}: {megabytes(path.stat().st_size)}, SHA-256 as in the manifest; {_form(here, manifest)}",
    )


def _form(here: Surroundings, manifest: Manifest) -> str:
    device = machine.device(here.settings.device)
    report = builds.read(here.settings.state_dir, manifest) if device == machine.CPU else None
    if report is None:
        return "not built for this machine" + (
            " (flask model build)" if machine.has_torch() else "; what the image has serves"
        )
    return f"built for this machine on {report.built_at[:10]}"
