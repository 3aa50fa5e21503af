"""Is what serves installed, and does it fit together: interpreter, libraries, mod_wsgi, Apache."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from app.cli.checks import Finding, Surroundings, ask, fail, ok, warn
from app.host import machine

OLDEST = (3, 11)
SET_UP = "make install"
LOCK = "requirements/serve.txt"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*(.*?))?\s*\\?$", re.M)
MODULE_LINE = re.compile(r"^\s*LoadModule \w+ \$\{MOD_WSGI_MODULES_DIRECTORY\}/(mod_\w+\.so)", re.M)
APACHE_NAMES = ("apache2", "httpd")
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
# What needs torch, and so an image that has it.
SLIM_CANNOT = "add, build or check models, compute on a GPU, or load what was not built"


def interpreter(here: Surroundings) -> Iterator[Finding]:
    """Python: its version, its library, and whether the service user can read it."""
    version = ".".join(map(str, sys.version_info[:3]))
    found = f"Python {version} in {sys.prefix}"
    if sys.version_info < OLDEST:
        yield fail("Interpreter", f"{found}, older than {OLDEST[0]}.{OLDEST[1]}", "Install a newer one, then " + SET_UP)
    elif not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        yield fail(
            "Interpreter", f"{found} has no shared libpython, which mod_wsgi links", "PYTHON=/usr/bin/python3 " + SET_UP
        )
    elif closed := _closed(here, Path(sys.executable).resolve(), Path(sysconfig.get_path("stdlib"))):
        yield fail(
            "Interpreter", f"{here.user.name} may not enter {closed}", f"chmod o+x {closed}, or set SERVICE_USER"
        )
    else:
        yield ok("Interpreter", found)


def _closed(here: Surroundings, *paths: Path) -> Path | None:
    return next((closed for path in paths if (closed := here.user.first_closed(path.parent))), None)


def libraries(here: Surroundings) -> Iterator[Finding]:
    """Whether the installed versions are the locked ones."""
    lock = here.root / LOCK
    if not lock.exists():
        yield ok("Libraries", "those of the image, which brings no lock file")
        if not machine.has_torch():
            yield ok("torch", f"none: a slim image, which serves built models only. It cannot {SLIM_CANNOT}")
        return
    rows = [(name, version) for name, version, marker in PINNED.findall(lock.read_text()) if not marker]
    others = [
        f"{name} {there or 'missing'} instead of {version}"
        for name, version in rows
        if (there := _version(name)) != version
    ]
    if others:
        shown = "; ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        yield warn("Libraries", shown, SET_UP)
    else:
        yield ok("Libraries", f"all {len(rows)} of {LOCK}")


def _version(name: str) -> str:
    try:
        # What is built for one kind of machine says so after a plus sign.
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


def mod_wsgi(here: Surroundings) -> Iterator[Finding]:
    """Whether the module is there and was built for the library of this very interpreter."""
    module = _module()
    if module is None:
        yield fail("mod_wsgi", "not installed", SET_UP)
        return
    if shutil.which("ldd") is None:
        yield ok("mod_wsgi", f"{module.name}; what it links cannot be looked at without ldd")
        return
    linked = re.findall(r"(libpython\S+) => (\S+)", ask(("ldd", module))[1])
    name = str(sysconfig.get_config_var("INSTSONAME"))
    folders = (sysconfig.get_config_var("LIBDIR"), f"/usr/lib/{sysconfig.get_config_var('MULTIARCH') or ''}")
    expected = {Path(folder, name).resolve() for folder in folders if folder}
    found = {Path(path).resolve() for _, path in linked}
    version = importlib.metadata.version("mod_wsgi")
    if found and found <= expected:
        yield ok("mod_wsgi", f"{version}, built for {name}")
    else:
        said = ", ".join(f"{one} ({path})" for one, path in linked) or "no libpython"
        yield fail(
            "mod_wsgi",
            f"{version} links {said}, and this interpreter is {name}",
            "pip uninstall mod_wsgi, then " + SET_UP,
        )


def _module() -> Path | None:
    spec = importlib.util.find_spec("mod_wsgi")
    places = spec.submodule_search_locations if spec else None
    return next((path for place in places or () for path in Path(place).glob("server/mod_wsgi*.so")), None)


def apache(here: Surroundings) -> Iterator[Finding]:
    """Apache and the modules that our configuration loads."""
    program = next((found for name in APACHE_NAMES if (found := shutil.which(name, path=SYSTEM_PATH))), None)
    if program is None:
        yield fail("Apache", "neither apache2 nor httpd is installed", SET_UP)
        return
    version = re.search(r"Apache/\S+", ask((program, "-v"))[1])
    names = {
        name
        for path in (here.root / "apache" / "conf").glob("*.conf")
        for name in MODULE_LINE.findall(path.read_text())
    }
    if not here.settings.tls_enabled:
        names.discard("mod_ssl.so")
    folder = _modules_folder()
    built_in = set(re.findall(r"(mod_\w+)\.c", ask((program, "-l"))[1]))
    missing = sorted(
        name for name in names if not (folder / name).exists() and name.removesuffix(".so") not in built_in
    )
    if missing:
        yield fail("Apache", f"{', '.join(missing)} missing in {folder}", "apt-get install apache2-bin")
    else:
        yield ok("Apache", f"{version[0] if version else program} with all {len(names)} modules that we load")


def _modules_folder() -> Path:
    # As mod_wsgi was told when it was built; a module of its own that is quick to import.
    try:
        from mod_wsgi.express import apxs_config
    except ImportError:
        return Path("/usr/lib/apache2/modules")
    return Path(apxs_config.LIBEXECDIR)
