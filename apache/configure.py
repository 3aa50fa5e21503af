"""Turn settings into a server root that Apache can start from: mod_wsgi-express options, our .conf files, error pages.

``python apache/configure.py PID``, of the process that is to serve, prints the path of the ``apachectl`` to start with;
or one line a failure on stderr, and exits with 2. Every value comes from app.config.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import html
import json
import logging
import math
import os
import re
import secrets
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# As in flask.wsgi: this process ends soon, and the start of the service waits for it.
gc.disable()

from apache import known_app, preflight  # noqa: E402 - the line above makes it importable
from apache.known_app import Facts  # noqa: E402
from app import config  # noqa: E402
from app.config import Settings, in_force, plugin_settings  # noqa: E402
from app.errors import CaskError, SettingsError, StateUnusableError  # noqa: E402
from app.host import arrivals, networks, sizing  # noqa: E402 - the line above makes it importable
from app.jobs import folder  # noqa: E402
from app.supervision import pulse  # noqa: E402
from app.telemetry import logs  # noqa: E402

# Flask, and what needs it, is imported where it is asked: most starts do without (apache/known_app.py). So is what is
# not needed before mod_wsgi-express begins, which then writes its files on the other core.
if TYPE_CHECKING:
    from app.plugins.applications import Application
    from app.plugins.mounting import Plugin

CONF = ROOT / "apache" / "conf"
# limits.conf must come first; see there. The others are included at the end.
INCLUDED = (
    "reloads",
    "pool",
    "addresses",
    "proxies",
    "arrivals",
    "request-id",
    "access",
    "admission",
    "ops",
    "static",
    "security",
    "compression",
    "whole-answers",
    "errors",
    "logging",
    "tls",
)
FIRST_LINE = 'Include "{path}"\n'
# Of the pages in errors.toml's own language.
ENGLISH = {"language": "en", "try_image": "Try an image", "request": "request"}
# As app/web/pages/languages.py decides: a person's choice first, then what the browser prefers.
READS_GERMAN = (
    "req_novary('Cookie') =~ m#(^|; )lang=de# || "
    "(req_novary('Cookie') !~ m#(^|; )lang=# && "
    r"req_novary('Accept-Language') =~ m#^de\b(?![-\w\s]*;\s*q=0(\.0*)?\s*(,|$))#i)"
)
USUAL_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
EXPRESS_TIMEOUT_SECONDS = 60
# Read by app/web/ops/known_routes.py.
KNOWN_ROUTES = "routes.json"
# Below STATE_DIR: what an earlier start may have left there is not true of this one.
STALE = ("run/metrics", "run/post-mortem")
# Only a safety net against requests that hang for ever: mod_wsgi ends the process when it fires. Deadlines are ours.
NET_FACTOR = 2
# With one the app asks for each body by an answer of its own, and Apache waits for that. How long a request waited, the
# app sees itself (app/web/middleware/deadlines.py).
NO_QUEUE_TIMEOUT = "--queue-timeout=0"
WAITING_FACTOR = 8
# Of an application of others: the class in apache/application.py, which its own Python shall not find by a name.
APPLICATION_SCRIPT = """import importlib.util
spec = importlib.util.spec_from_file_location("cask_application", {path!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
application = module.Application(*{values!r})
"""


def main() -> int:
    """Look, render, check, and print the path of apachectl. Returns 2 and a line on stderr for each thing wrong."""
    # Who starts us reads our output; whatever plugins and libraries print on the way goes to the log.
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        settings = config.load()
    except SettingsError as error:
        return refuse(error.message)
    if reasons := preflight.reasons(settings, int(sys.argv[1]) if sys.argv[1:] else 0):
        return refuse(*(f"FAIL: {reason}" for reason in reasons))
    try:
        server_root = prepare(settings)
    except (CaskError, OSError) as error:
        return refuse((f"{error.message} {error.hint}" if isinstance(error, CaskError) else str(error)).strip())
    os.write(output, f"{server_root / 'apachectl'}\n".encode())
    return 0


def refuse(*lines: str) -> int:
    """Say why nothing starts. Returns the exit status for it."""
    for line in lines:
        logs.tell_refusal(line)
    return 2


def prepare(settings: Settings) -> Path:
    """Everything that is written before Apache starts. Returns the server root. Raises CaskError and OSError."""
    make_folders(settings.state_dir)
    server_root: Path = settings.state_dir / "run" / "httpd"
    with rendering(settings, server_root):
        look_at_state(settings)
        known = known_app.of(settings, _retry_after_seconds(settings))
        write_ours(settings, server_root, known.facts, known.plugins)
        announce_sizes(settings)
        warn_without_tokens(settings)
        compare_secret_keys(settings)
        mend_counts(settings, has_plugins=bool(known.plugins))
    # A certificate is another one without any of what is known having changed.
    if settings.tls_enabled or not known.is_kept:
        test_configuration(server_root)
    known_app.keep(settings, known)
    return server_root


def look_at_state(settings: Settings) -> None:
    """Whether this release can use what others left; saved, and brought to its form. Raises CaskError and OSError."""
    from app.backups import upgrades
    from app.storage import state_files

    state_files.check(settings.state_dir)
    if not config.is_check():
        upgrades.prepare(settings)


def make_folders(state_dir: Path) -> None:
    """Those that begin empty. Libraries keep caches below HOME; the service user's own may be missing or root's."""
    for name in STALE:
        shutil.rmtree(state_dir / name, ignore_errors=True)
    (state_dir / "run" / "metrics").mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(state_dir)


def announce_sizes(settings: Settings) -> None:
    """Log how many of everything there will be, and why: the first question when a machine seems slow."""
    logs.configure(settings, role="start")
    for size in sizing.choose(settings):
        logging.getLogger("cask.start").info("%s", size)


def warn_without_tokens(settings: Settings) -> None:
    """The first start of a service that asks for tokens: nobody has one, and 401 for all would be a riddle."""
    if settings.authentication == "off":
        return
    from app.auth import stores

    try:
        is_any = stores.store(settings).is_any_valid()
    except StateUnusableError as error:
        # A file is looked at before: this is Redis, which may come later than we do.
        logging.getLogger("cask.start").warning("%s Callers get 503 until it answers.", error.message)
        return
    if not is_any:
        logging.getLogger("cask.start").warning(
            "nobody has a token yet, so all callers get 401: flask token create NAME makes one (or AUTHENTICATION=off)"
        )


def compare_secret_keys(settings: Settings) -> None:
    """Log when another instance at the same Redis does not take the sessions of this one, or this one not its."""
    if settings.state_store == "disk":
        return
    from app.auth import secret_keys

    keys = [key.get_secret_value() for key in (settings.secret_key, settings.secret_key_fallback)]
    try:
        other = secret_keys.other(settings.redis_address, *keys)
        secret_keys.note_start(settings.redis_address, *keys)
    except Exception:  # noqa: BLE001 - Redis does not answer, as the line above says
        return
    if other:
        logging.getLogger("cask.start").warning(
            "SECRET_KEY differs from that of %s, at the same Redis: people are signed out when a request reaches the"
            " other; give all instances one key, and during a rotation the other one as SECRET_KEY_FALLBACK",
            other,
        )


def mend_counts(settings: Settings, *, has_plugins: bool) -> None:
    """Now, while no process counts. Not read where nothing is limited; routes of plugins may be."""
    if settings.rate_limit_per_address or settings.rate_limit_per_token or has_plugins:
        from app.ratelimit import counters

        counters.mend(settings.state_dir)


def render(settings: Settings, server_root: Path, facts: Facts, plugins: Sequence[Plugin] = ()) -> None:
    """Write the whole server root. Raises OSError when Apache would not take it, with Apache's own words."""
    with rendering(settings, server_root):
        write_ours(settings, server_root, facts, plugins)
    test_configuration(server_root)


@contextlib.contextmanager
def rendering(settings: Settings, server_root: Path) -> Iterator[None]:
    """Make the server root anew: our files are written inside, those of mod_wsgi-express meanwhile. Raises OSError."""
    check_modules()
    shutil.rmtree(server_root, ignore_errors=True)
    server_root.mkdir(parents=True)
    with running_express(express_options(settings, server_root), server_root):
        yield
    mend_hosts(server_root)
    put_limits_first(server_root)


def write_ours(settings: Settings, server_root: Path, facts: Facts, plugins: Sequence[Plugin]) -> None:
    """All files but those of mod_wsgi-express."""
    from app.web.middleware import places

    write_definitions(settings, server_root, facts)
    note_certificate(settings, server_root)
    define_mounts(server_root, plugins)
    write_headers(server_root, facts, plugins)
    write_cors(settings, server_root, plugins)
    write_plugins(server_root, plugins)
    write_applications(settings, server_root, plugins)
    write_error_documents(settings, server_root)
    write_refusal(settings, server_root, facts)
    make_counted_log(server_root)
    make_arrivals_folder(settings)
    note_jobs(settings, server_root)
    places.make(settings.state_dir / places.FILE, sizing.choose(settings).web_processes.value)
    arrivals.make_answered(settings)
    write_log_file(settings, server_root)
    write_log_mark(settings, server_root)
    in_force.note(settings, server_root)
    (server_root / KNOWN_ROUTES).write_text(json.dumps(facts.routes))


def express_options(settings: Settings, server_root: Path) -> list[str]:
    """Every option of mod_wsgi-express, by name."""
    sizes = sizing.choose(settings)
    options = [
        str(ROOT / "flask.wsgi"),
        f"--server-root={server_root}",
        f"--working-directory={ROOT}",
        f"--port={settings.port}",
        "--process-group=web",
        f"--processes={sizes.web_processes.value}",
        f"--threads={sizes.web_threads.value}",
        # Only for what mod_wsgi-express derives from them; pool.conf has the last word.
        f"--max-clients={sizes.server_max_connections.value}",
        "--initial-workers=1",
        "--minimum-spare-workers=0.1",
        "--maximum-spare-workers=1",
        f"--header-timeout={settings.server_header_timeout_seconds}",
        f"--header-max-timeout={settings.server_header_timeout_seconds * 2}",
        f"--body-timeout={settings.server_body_timeout_seconds}",
        f"--limit-request-body={settings.request_max_bytes}",
        f"--request-timeout={int(settings.request_max_timeout_seconds * NET_FACTOR)}",
        f"--socket-timeout={int(settings.silence_seconds)}",
        NO_QUEUE_TIMEOUT,
        # So much of an answer waits in Apache for a slow reader; the app's thread goes on.
        f"--response-buffer-size={arrivals.ANSWER_BYTES}",
        f"--shutdown-timeout={settings.server_shutdown_seconds}",
        f"--graceful-timeout={settings.server_shutdown_seconds}",
        # Callers with bodies of unknown length are welcome; the size is limited all the same.
        "--chunked-request",
        # In dev ops looks for saves instead (app/plugins/save_watch.py).
        "--disable-reloading",
        # Others than UTF-8 break file names and log lines.
        "--locale=C.UTF-8",
        "--log-to-terminal",
        # Apache's own "info" tells each step of each process; LOG_LEVEL is about our lines.
        "--log-level=warn",
        "--service-script",
        "engine",
        str(ROOT / "apache" / "engine.py"),
    ]
    if settings.jobs == "on":
        options += ["--service-script", "jobs", str(ROOT / "apache" / "jobs.py")]
    options += [f"--include-file={CONF / name}.conf" for name in INCLUDED]
    if settings.listen_host != "0.0.0.0":  # noqa: S104 - compared, not bound
        options.append(f"--host={config.in_url(settings.listen_host)}")
    if trusted_proxies(settings):
        # Of others proxies.conf takes the header away; and it tells mod_wsgi the caller's address.
        options.append("--trust-proxy-header=X-Forwarded-Proto")
    return options


def write_definitions(settings: Settings, server_root: Path, facts: Facts | None = None) -> None:
    """What our .conf files call ${CASK_…}. ``facts``: of the application; the edge has none."""
    from app.web.middleware import places

    sizes = sizing.choose(settings)
    values = {
        "CASK_ROOT": ROOT,
        "CASK_SERVER_ROOT": server_root,
        "CASK_MODULES": known_app.MODULES,
        "CASK_SILENCE": settings.state_dir / pulse.SILENCE,
        "CASK_SERVER_NAME": config.in_url(settings.server_name),
        # Apache takes no address in brackets for a name; there is one host with TLS, whatever it is called.
        "CASK_TLS_NAME": "localhost" if ":" in settings.server_name else settings.server_name,
        "CASK_LISTEN": f"{config.in_url(settings.listen_host)}:",
        "CASK_REQUEST_MAX_BYTES": settings.request_max_bytes,
        "CASK_SERVER_SHUTDOWN_SECONDS": settings.server_shutdown_seconds,
        "CASK_HSTS_SECONDS": settings.hsts_seconds,
        "CASK_HTTPS_PORT": settings.https_port,
        "CASK_TLS_CERTIFICATE": settings.tls_certificate or "",
        "CASK_TLS_KEY": settings.tls_key or "",
        "CASK_SERVER_PROCESSES": sizes.server_processes.value,
        "CASK_SERVER_THREADS": sizes.server_threads,
        "CASK_SERVER_MAX_CONNECTIONS": sizes.server_processes.value * sizes.server_threads,
        "CASK_PLACES": settings.state_dir / places.FILE,
        "CASK_ANSWERED": settings.state_dir / arrivals.ANSWERED,
        "CASK_ADMIN_NETWORKS": " ".join(networks.of_operators(settings)) or "255.255.255.255/32",
        "CASK_TRUSTED_PROXIES": " ".join(trusted_proxies(settings)),
        "CASK_IS_TRUSTED": _is_trusted(settings),
        "CASK_PATH_PREFIX": settings.path_prefix,
        "CASK_PREFIX_PATTERN": config.PATH_PREFIX.pattern,
        "CASK_ACCESS_LOG": "/proc/self/fd/1",
        **arrivals.definitions(settings, sizes),
        "CASK_METRICS_ALLOW": " ".join(("127.0.0.0/8", "::1", *settings.metrics_allow)),
    }
    if facts is not None:
        values |= {"CASK_PREDICTING": f"^(?:{facts.predicting})$", "CASK_COMPUTED": facts.computed}
    lines = [f'Define {name} "{value}"' for name, value in values.items()]
    lines += [f"Define {name}" for name, is_on in switches(settings).items() if is_on]
    (server_root / "definitions.conf").write_text("\n".join(lines) + "\n")


def switches(settings: Settings) -> dict[str, bool]:
    """What our .conf files ask for with <IfDefine>."""
    return {
        "CASK_LOG_JSON": settings.log_format == "json",
        "CASK_HSTS": settings.hsts_seconds > 0,
        "CASK_TLS": settings.tls_enabled,
        "CASK_PROXIES": bool(trusted_proxies(settings)),
        "CASK_HTTP2": settings.http2 == "on",
        "CASK_PREFIX": bool(settings.path_prefix),
    }


def note_certificate(settings: Settings, server_root: Path) -> None:
    """Which pair Apache reads at its start: ops looks for another one (app.supervision.certificate_renewals)."""
    if settings.tls_enabled and settings.tls_certificate and settings.tls_key:
        from app.host import certificates

        certificates.note(certificates.read(settings.tls_certificate, settings.tls_key), server_root)


def define_mounts(server_root: Path, plugins: Sequence[Plugin]) -> None:
    """Where applications of others are, as alternatives of an expression that already has one."""
    mounts = "".join(f"|{each.application.mount[1:]}/" for each in plugins if each.application)
    # Nothing at all would count as not defined, and be warned of.
    mounts = mounts or "|_errors/"
    with (server_root / "definitions.conf").open("a") as file:
        file.write(f'Define CASK_MOUNTS "{mounts}"\n')


def write_headers(server_root: Path, facts: Facts, plugins: Sequence[Plugin]) -> None:
    """The app's security headers, for answers that Python never sees. An application of others has its own."""
    ours = f' "expr={_is_ours(plugins)}"' if _is_ours(plugins) else ""
    lines = []
    for name, value in facts.headers.items():
        lines += [f"Header onsuccess unset {name}{ours}", f'Header always set {name} "{value}"{ours}']
    (server_root / "headers.conf").write_text("\n".join(lines) + "\n")


def write_plugins(server_root: Path, plugins: Sequence[Plugin]) -> None:
    """Files of plugins, what their own pages may load besides, and methods that Apache does not know."""
    if not plugins:
        (server_root / "plugins.conf").touch()
        return
    from app.plugins import claims
    from app.web.middleware.security_headers import POLICY

    lines = []
    for each in (each for each in plugins if not each.reason):
        lines += [f"RegisterHttpMethod {method}" for method in sorted(each.methods - USUAL_METHODS)]
        if (folder := (each.folder / "static").resolve()).is_dir():
            lines += [f'Alias "{claims.STATIC}{each.name}/" "{folder}/"', f'<Directory "{folder}">']
            lines += [f'    Include "{CONF / "files.conf"}"', "</Directory>"]
        if each.content_security_policy and each.patterns:
            lines += [f'<LocationMatch "^(?:{"|".join(each.patterns)})$">']
            lines += [f'    Header always set {POLICY} "{each.content_security_policy}"', "</LocationMatch>"]
    (server_root / "plugins.conf").write_text("".join(f"{line}\n" for line in lines))


def write_applications(settings: Settings, server_root: Path, plugins: Sequence[Plugin]) -> None:
    """Each whole application of somebody else's: a daemon group of its own, so that a broken one harms nobody else."""
    folder, lines = server_root / "applications", list[str]()
    folder.mkdir()
    for plugin in plugins:
        if plugin.application is not None:
            lines += application_lines(settings, folder, plugin, plugin.application)
    lines += [f'<Directory "{folder}">', "    Require all granted", "</Directory>"] if lines else []
    (server_root / "applications.conf").write_text("".join(f"{line}\n" for line in lines))


def application_lines(settings: Settings, folder: Path, plugin: Plugin, found: Application) -> list[str]:
    """Apache's lines for one. Writes its script, and makes the folder below STATE_DIR that is its own."""
    from app.web.ops import applications, guard

    own = plugin_settings.own_folder(settings, plugin.name)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    script, group, mount = folder / f"{plugin.name}.wsgi", f"plugin-{plugin.name}", found.mount
    notes = settings.state_dir / applications.FOLDER / plugin.name
    shutil.rmtree(notes, ignore_errors=True)
    guarded = {"scope": found.scope, "limit": found.limit, "socket": str(settings.state_dir / guard.FILE)}
    callers = guarded if found.scope or found.limit else {}
    target = f"{found.module}:{found.name}"
    values = (plugin.name, target, str(notes), found.variables_in(own), callers, settings.log_level)
    script.write_text(APPLICATION_SCRIPT.format(path=str(ROOT / "apache" / "application.py"), values=values))
    seconds = found.timeout_seconds or int(settings.request_max_timeout_seconds * NET_FACTOR)
    # Beyond so many callers who wait, one more is refused: each holds a thread of Apache's.
    waiting = found.processes * found.threads * WAITING_FACTOR
    home = found.environment or (empty_environment(folder / f"{plugin.name}-python") if found.libraries else None)
    environment = f' python-home="{home}"' if home else ""
    packages = f"{plugin.folder}:{found.libraries}" if found.libraries else str(plugin.folder)
    options = f"{environment} processes={found.processes} threads={found.threads} lang=C.UTF-8 locale=C.UTF-8"
    options += f" request-timeout={seconds} socket-timeout={seconds} queue-timeout={seconds} connect-timeout=2"
    options += f" listen-backlog={waiting} deadlock-timeout=60 startup-timeout=60"
    options += (
        f" graceful-timeout={settings.server_shutdown_seconds} shutdown-timeout={settings.server_shutdown_seconds}"
    )
    limit = [f'<Location "{mount}">', f"    LimitRequestBody {found.max_body_bytes}", "</Location>"]
    where = f'"{script}" process-group={group} application-group=%{{GLOBAL}}'
    return [
        f'WSGIDaemonProcess {group} display-name=(wsgi:{group}) home="{plugin.folder}" python-path="{packages}"'
        + options,
        f'RedirectMatch 308 "^({mount})$" "$1/"',
        f"WSGIScriptAlias {mount} {where}",
        # At once, not when somebody asks: whether it is there shall be known.
        f"WSGIImportScript {where}",
        f'SetEnvIf Request_URI "^{mount}(/|$)" CASK_APPLICATION={plugin.name}',
        *(limit if found.max_body_bytes else []),
    ]


def empty_environment(folder: Path) -> Path:
    """A Python without the packages of Cask: links only, nothing is installed."""
    venv.EnvBuilder(symlinks=True).create(folder)
    return folder


def write_cors(settings: Settings, server_root: Path, plugins: Sequence[Plugin] = ()) -> None:
    """CORS headers, set here on every answer; the app leaves them to Apache.

    An application of others says it by itself.
    """
    lines = []
    if settings.cors_origins:
        from app.web.middleware import cors

        is_any = cors.ALL in settings.cors_origins
        ours = _is_ours(plugins)
        is_allowed = f"req_novary('Origin') =~ m#^(?:{cors.pattern(settings)})$#i" + (f" && {ours}" if ours else "")
        # A browser that asks first says which method it means.
        asks = "%{REQUEST_METHOD} == 'OPTIONS' && -n req_novary('Access-Control-Request-Method')"
        answer = cors.answer_headers(cors.ANY if is_any else "expr=%{req_novary:Origin}")
        lines += [f'Header always set {name} "{value}" "expr={is_allowed}"' for name, value in answer.items()]
        preflight = cors.preflight_headers()
        lines += [f'Header always set {name} "{v}" "expr={is_allowed} && {asks}"' for name, v in preflight.items()]
        lines += [] if is_any else ["Header always merge Vary Origin" + (f' "expr={ours}"' if ours else "")]
    (server_root / "cors.conf").write_text("\n".join(lines) + "\n")


def _is_ours(plugins: Sequence[Plugin]) -> str:
    """Apache's expression for: no application of others is asked; empty where there is none."""
    mounts = "|".join(each.application.mount for each in plugins if each.application)
    return f"%{{REQUEST_URI}} !~ m#^(?:{mounts})(?:/|$)#" if mounts else ""


def write_error_documents(settings: Settings, server_root: Path) -> None:
    """Each status of errors.toml as problem document, and as page for callers that ask for HTML."""
    folder = server_root / "errors"
    folder.mkdir()
    documents, pages, german_pages = [], [], []
    table, german = (_error_words(settings, name) for name in ("errors.toml", "errors.de.toml"))
    page = (ROOT / "apache" / "error-page.html").read_text()
    for status, words in table.items():
        # `501-coding`: other words for a status, which addresses.conf chooses.
        number, _, other = status.partition("-")
        (folder / f"{status}.json").write_text(_problem(int(number), words))
        (folder / f"{status}.html").write_text(_page(page, number, ENGLISH | words))
        (folder / f"{status}.de.html").write_text(_page(page, number, words | german["page"] | german[status]))
        if not other:
            documents.append(f"ErrorDocument {status} /_errors/{status}.json")
            pages.append(f"    ErrorDocument {status} /_errors/{status}.html")
            german_pages.append(f"    ErrorDocument {status} /_errors/{status}.de.html")
    # Not by content negotiation, which answers 406 to those who accept neither by name.
    accepts = "req_novary('Accept') =~ m#text/html#"
    lines = [*documents, f'<If "{accepts}">', *pages, "</If>"]
    lines += [f'<If "{accepts} && ({READS_GERMAN})">', *german_pages, "</If>"]
    (server_root / "error-documents.conf").write_text("\n".join(lines) + "\n")


def write_refusal(settings: Settings, server_root: Path, facts: Facts) -> None:
    """The refusal that Apache sends when no place is free, in the words of the app."""
    document = json.dumps({**facts.refusal, "request_id": "%{req_novary:X-Request-Id}"})
    line = f'ArrivalsRefusal "{_retry_after_seconds(settings)}" {json.dumps(document)}'
    (server_root / "refusal.conf").write_text(f"{line}\n")


def make_arrivals_folder(settings: Settings) -> None:
    """Where bodies wait until they are whole."""
    (settings.state_dir / arrivals.FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)


def check_modules() -> None:
    """Raises OSError with what to do where one of our modules is missing."""
    for source in sorted((ROOT / "apache" / "modules").glob("mod_*.c")):
        if not (path := known_app.MODULES / f"{source.stem}.so").exists():
            raise OSError(f"FAIL: needs {path}, found nothing. Run requirements/install.sh.")


def make_counted_log(server_root: Path) -> None:
    """The file of what Apache answers by itself: Apache appends, the ops process reads."""
    (server_root / "counted.log").touch(0o640)


def note_jobs(settings: Settings, server_root: Path) -> None:
    """For jobs.py, which waits before it reads settings: that jobs are seen on the disk."""
    if not settings.are_jobs_shared:
        (server_root / folder.ON_DISK).touch()


def write_log_file(settings: Settings, server_root: Path) -> None:
    """For serve.sh: where lines are kept, and how many; no file where nobody params it."""
    if settings.log_file is not None:
        rows = (settings.log_file, settings.log_file_max_bytes, settings.log_file_count)
        (server_root / "log-file").write_text("".join(f"{row}\n" for row in rows))


def write_log_mark(settings: Settings, server_root: Path) -> None:
    """For serve.sh: the word that stands before each line of ours, see json_lines.py; no file where lines are text."""
    if settings.log_format == "json":
        path = server_root / "log-mark"
        path.touch(0o600)
        path.write_text(secrets.token_hex(8))


def _retry_after_seconds(settings: Settings) -> int:
    """What is refused would wait longer than this; and whole seconds are all that the header can say."""
    from app.web.middleware.admission_controller import LEAST_RETRY_AFTER_SECONDS

    return math.ceil(max(LEAST_RETRY_AFTER_SECONDS, settings.request_max_wait_seconds))


def trusted_proxies(settings: Settings) -> tuple[str, ...]:
    """Those of the setting, and the edge of a container host, which adds a value to each list as they do."""
    return (*settings.trusted_proxies, *filter(None, [config.edge_address()]))


def _is_trusted(settings: Settings) -> str:
    """Apache's expression for: one of TRUSTED_PROXIES has connected to us, whomever it speaks for."""
    return " || ".join(f"%{{CONN_REMOTE_ADDR}} -ipmatch '{each}'" for each in trusted_proxies(settings)) or "false"


@contextlib.contextmanager
def running_express(options: list[str], server_root: Path) -> Iterator[None]:
    """Let mod_wsgi-express write httpd.conf and apachectl beside what is done here. Raises OSError with its output."""
    express = Path(sys.executable).with_name("mod_wsgi-express")
    command = [sys.executable, str(express), "setup-server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield
        try:
            output, errors = process.communicate(timeout=EXPRESS_TIMEOUT_SECONDS)
        except BaseException:
            process.kill()
            raise
    if process.returncode or not (server_root / "httpd.conf").exists():
        raise OSError(f"mod_wsgi-express failed: {(errors or output).strip()}")


def mend_hosts(server_root: Path) -> None:
    """What mod_wsgi-express has no option for.

    It names the server after the address it listens on, and Apache refuses a name in brackets; rules of
    addresses.conf hold in a virtual host only where it says so itself.
    """
    path = server_root / "httpd.conf"
    text = re.sub(r"(?m)^ServerName \[.*\]$", "ServerName localhost", path.read_text())
    path.write_text(re.sub(r"(?m)^(<VirtualHost .*>)$", r"\1\n    RewriteEngine On", text))


def put_limits_first(server_root: Path) -> None:
    """Include definitions and limits above the first <VirtualHost>."""
    path = server_root / "httpd.conf"
    before = path.read_text()
    includes = [FIRST_LINE.format(path=each) for each in (server_root / "definitions.conf", CONF / "limits.conf")]
    path.write_text("".join(includes) + before)
    if not path.read_text().startswith(includes[0]):
        raise OSError(f"{path} could not be edited.")


def test_configuration(server_root: Path) -> None:
    """Ask Apache whether it would start. Raises OSError with its answer."""
    env = {**os.environ, config.LOG_MARK: "configtest"}
    command = ["bash", str(server_root / "apachectl"), "configtest"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=EXPRESS_TIMEOUT_SECONDS, check=False, env=env
    )
    if done.returncode:
        raise OSError(f"Apache refuses the configuration: {done.stderr.strip()}")


def _problem(status: int, words: dict[str, str]) -> str:
    document = {"type": f"urn:cask:problem:{words['code']}", "title": words["title"], "status": status}
    document |= {"detail": words["detail"], "code": words["code"], "hint": words["hint"], "request_id": _REQUEST_ID}
    return json.dumps(document, indent=2).replace(json.dumps(_REQUEST_ID), f'"{_REQUEST_ID}"') + "\n"


def _error_words(settings: Settings, name: str) -> dict[str, dict[str, str]]:
    text = (ROOT / "apache" / name).read_text()
    return tomllib.loads(text.replace("{request_max_bytes}", str(settings.request_max_bytes)))


def _page(page: str, status: str, words: dict[str, str]) -> str:
    for name, value in {"status": status, **words}.items():
        page = page.replace("{{ " + name + " }}", html.escape(value))
    return page.replace("{{ request_id }}", _REQUEST_ID).replace("{{ prefix }}", _PREFIX)


# Filled in by mod_include when the document is sent.
_PREFIX = '<!--#echo encoding="none" var="HTTP_X_FORWARDED_PREFIX" -->'
_REQUEST_ID = '<!--#echo encoding="none" var="HTTP_X_REQUEST_ID" -->'

if __name__ == "__main__":
    status = main()
    # As sys.exit, but for taking the whole application apart, object by object: a tenth of a second of each start.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
