"""What Apache's configuration says of the application, kept while nothing changes that decides it.

To build the application and ask it takes 0.3 s of processor time, half of what comes before Apache. What it would say
is kept below STATE_DIR with one digest of all that it depends on: each file of our code by its content, the
interpreter and its packages, Apache and its modules, the settings, the model store. With any difference, or a file that
is not as it should be, the application is built and asked anew; so it is for ``serve.sh --check``, and wherever there
are plugins. It is kept once Apache has taken the configuration, which it then need not test again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app import config
from app.config import ROOT, Settings, plugin_settings
from app.errors import PluginError
from app.storage import files, json_files

if TYPE_CHECKING:
    from app.plugins.mounting import Plugin

# Below STATE_DIR.
FILE = Path("cache", "known-app")
MOST_BYTES = 1 << 20
MOST_FILES = 10_000
CODE = ("app", "apache", "cask", "flask.wsgi")
# They decide what addresses and rules are; a file of theirs is hardly ever changed in place.
LIBRARIES = ("flask", "werkzeug")
# Ours for Apache, where requirements/install.sh and the image's build put them: beside the Python that runs us.
MODULES = Path(sys.prefix) / "lib" / "cask"
# Where the service is and listens is nothing that the application is made of.
PLACES = ("state_dir", "engine_socket", "port", "loadtest_host")


@dataclass(frozen=True)
class Facts:
    """What is told to Apache.

    ``predicting``: an expression for the paths of requests that predict. ``routes``: each address with its methods.
    ``headers``: the security headers. ``computed``: an expression for a Cache-Control that wants an answer computed.
    ``refusal``: the problem document of a refused caller, by seconds of Retry-After.
    """

    predicting: str
    routes: list[list[Any]]
    headers: dict[str, str]
    computed: str
    refusal: dict[str, Any]


class Known(NamedTuple):
    """What the application says of itself, and the plugins on it.

    ``digest``: of all that decides it; empty where it cannot be kept. ``is_kept``: an earlier start found the same.
    """

    facts: Facts
    plugins: list[Plugin]
    digest: str = ""
    is_kept: bool = False


def of(settings: Settings, retry_after_seconds: int) -> Known:
    """From the file of an earlier start where it still holds, else from the application itself.

    A failure stops the start here; in Apache it would be a 500 for ever. Raises CaskError.
    """
    digest = "" if _has_plugins(settings) else identity(settings)
    if digest and not config.is_check() and (facts := _read(settings.state_dir / FILE, digest)):
        return Known(facts, [], digest, is_kept=True)
    known = ask(settings, retry_after_seconds)
    # What changed while it was asked would be taken for what was asked.
    return known._replace(digest=digest) if digest and digest == identity(settings) else known


def keep(settings: Settings, known: Known) -> None:
    """For the next start, once Apache has taken what was made of it."""
    if known.digest and not known.is_kept:
        _keep(settings.state_dir / FILE, known.digest, known.facts)


def ask(settings: Settings, retry_after_seconds: int) -> Known:
    """Build the application and ask it."""
    from app import factory
    from app.plugins import mounting
    from app.web import policy
    from app.web.middleware import admission, security_headers
    from app.web.middleware.admission_controller import Refusal
    from app.web.ops import known_routes

    app = factory.create_app(settings.model_copy(update={"engine_mode": "service"}))
    plugins: list[Plugin] = app.extensions[mounting.EXTENSION]
    # Without those of plugins, which are admitted when they ask the engine.
    ours = factory.routes_only()
    facts = Facts(
        policy.predicting(ours),
        known_routes.rules(ours.url_map),
        security_headers.HEADERS,
        admission.COMPUTED.pattern,
        admission.refusal(Refusal("slow", retry_after_seconds)).to_problem(""),
    )
    return Known(facts, plugins)


def identity(settings: Settings) -> str:
    """A digest of all that decides what the application says, and whether it can be built; empty where some of it
    cannot be read, or is too much to look at.
    """
    hasher = hashlib.sha256()
    try:
        for part in _parts(settings):
            hasher.update(len(part).to_bytes(8, "big"))
            hasher.update(part)
    except OSError:
        return ""
    return hasher.hexdigest()


def _parts(settings: Settings) -> Iterator[bytes]:
    for name in CODE:
        for path in _files(ROOT / name):
            yield os.fsencode(path)
            # By content: two commits, or two images, may hold files of one size and time.
            yield Path(path).read_bytes()
    yield repr((sys.version, sys.prefix, sys.flags, sys.path)).encode()
    for packages in {Path(sysconfig.get_path(key)): None for key in ("purelib", "platlib")}:
        yield repr(sorted(os.scandir(packages), key=_name)).encode()
        for name in LIBRARIES:
            yield from _stamps(packages / name)
    for field, one in config.DECLARATIONS.items():
        if field not in PLACES:
            value = settings.text(field)
            yield f"{field}={bool(value) if one.is_secret else value}".encode()
    yield from _stamps(MODULES)
    # Its own modules come in the same package.
    yield from _stamps(Path(shutil.which("apache2") or shutil.which("httpd") or sys.executable))
    yield from _stamps(settings.models_dir)
    roles = settings.state_dir / "roles.json"
    yield roles.read_bytes() if roles.exists() else b""


def _stamps(folder: Path) -> Iterator[bytes]:
    """Each file below a folder by its name, its size, and times of which its owner cannot set the last."""
    for path in _files(folder):
        found = os.stat(path)  # noqa: PTH116 - pathlib costs three times as much
        yield repr((path, found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)).encode()


def _files(top: Path) -> Iterator[str]:
    """The regular files below a folder, also behind links; a file is one itself. Raises OSError for too many."""
    if top.is_file():
        yield str(top)
        return
    waiting, count = [str(top)], 0
    while waiting:
        # A circle of links ends with too long a path, or here.
        for entry in sorted(os.scandir(waiting.pop()), key=_name):
            if (count := count + 1) > MOST_FILES:
                raise OSError(errno.EFBIG, "more files than are looked at", str(top))
            if entry.is_file():
                yield entry.path
            elif entry.is_dir() and entry.name != "__pycache__":
                waiting.append(entry.path)


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _has_plugins(settings: Settings) -> bool:
    try:
        return bool(plugin_settings.folders(settings))
    except PluginError:
        return True


def _read(path: Path, digest: str) -> Facts | None:
    """What the file holds; None where it is of something else, of somebody else, or damaged."""
    try:
        if path.stat().st_uid != os.geteuid():
            return None
        kept = json.loads(files.read(path, MOST_BYTES))
        facts = Facts(**kept["facts"])
        return facts if kept["identity"] == digest and _sum(facts) == kept["sum"] else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(path: Path, digest: str, facts: Facts) -> None:
    # Where it cannot be kept, the next start takes as long as this one.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        json_files.replace(path, {"identity": digest, "sum": _sum(facts), "facts": asdict(facts)})


def _sum(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(asdict(facts), sort_keys=True).encode()).hexdigest()
