"""Imports point one way. To change the picture, change this table, the code and docs/architecture.md together."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ROOT
from tests import fakes

# What each module may import of ours. A name stands for the module and all below it; None is everything.
# The first line that fits counts.
TABLE: list[tuple[str, set[str] | None]] = [
    ("app.texts", set()),
    ("app.errors", set()),
    ("app.results", set()),
    ("app.policy", set()),
    ("app.file_locks", set()),
    ("app.json_files", set()),
    ("app.machine", set()),
    ("app.permissions", set()),
    ("app.circuit_breaker", set()),
    # The commands that show settings answer to `python -m app.config` too.
    ("app.config", {"app.errors", "app.results", "app.cli.config"}),
    ("app.database", {"app.file_locks", "app.errors"}),
    ("app.tokens", {"app.database", "app.errors"}),
    ("app.state_files", {"app.config", "app.errors", "app.jobs.disk_store", "app.tokens"}),
    ("app.certificates", set()),
    ("app.redis_connections", set()),
    ("app.counters", {"app.circuit_breaker", "app.database", "app.errors", "app.redis_connections"}),
    ("app.sizing", {"app.config", "app.machine"}),
    ("app.arrivals", {"app.config", "app.sizing"}),
    ("app.files", {"app.machine"}),
    # The engine's half of a task is imported when the engine asks for it.
    # Tasks only when a manifest is read: see manifests._task_names.
    ("app.manifests", {"app.errors", "app.files", "app.results", "app.tasks"}),
    ("app.tasks", {"app.tasks", "app.manifests", "app.merging", "app.results", "app.vision"}),
    ("app.builds", {"app.config", "app.file_locks", "app.files", "app.json_files", "app.manifests"}),
    ("app.roles", {"app.errors", "app.files", "app.json_files", "app.manifests"}),
    ("app.routing", {"app.errors", "app.json_files", "app.manifests", "app.roles"}),
    ("app.options", {"app.errors", "app.results", "app.manifests", "app.tasks"}),
    ("app.resampling", set()),
    ("app.overlays", {"app.results"}),
    ("app.ledger", {"app.file_locks", "app.machine"}),
    ("app.budget", {"app.errors", "app.ledger"}),
    ("app.ledger", {"app.file_locks", "app.machine"}),
    ("app.budget", {"app.errors", "app.ledger"}),
    ("app.heads.looks", {"app.heads", "app.errors"}),
    ("app.heads", {"app.heads"}),
    ("app.colours", {"app.errors"}),
    ("app.decoding.child", {"app.errors", "app.heads", "app.images", "app.manifests"}),
    ("app.decoding.children", {"app.decoding", "app.errors", "app.heads", "app.images", "app.manifests"}),
    (
        "app.decoding.decoder",
        {
            *("app.decoding", "app.budget", "app.config", "app.errors", "app.images", "app.manifests", "app.sizing"),
        },
    ),
    ("app.decoding.lanes", {"app.errors"}),
    ("app.decoding", set()),
    (
        "app.images",
        {
            *("app.colours", "app.heads"),
            *("app.errors", "app.results", "app.manifests", "app.resampling"),
        },
    ),
    ("app.telemetry", {"app.telemetry", "app.config", "app.file_locks", "app.machine", "app.__version__"}),
    ("app.forms", {"app.builds", "app.json_files"}),
    ("app.merging", {"app.results"}),
    ("app.upstream_answers", {"app.errors", "app.manifests", "app.results", "app.tasks"}),
    ("app.upstreams", {"app.errors", "app.manifests", "app.upstream_answers", "app.circuit_breaker"}),
    (
        "app.ensembles",
        {
            *("app.config", "app.errors", "app.results", "app.sizing", "app.telemetry.logs"),
            *("app.upstream_answers", "app.upstreams"),
        },
    ),
    ("app.cache.keys", {"app.results", "app.__version__"}),
    (
        "app.cache",
        {
            *("app.cache", "app.circuit_breaker", "app.config", "app.database", "app.errors", "app.manifests"),
            *("app.redis_connections", "app.results", "app.sizing", "app.tasks", "app.telemetry"),
        },
    ),
    ("app.engine.protocol", set()),
    ("app.engine.batcher", {"app.errors"}),
    (
        "app.engine.client",
        {"app.engine.protocol", "app.errors", "app.manifests", "app.results", "app.tasks", "app.telemetry.logs"},
    ),
    (
        "app.engine.worker",
        {
            *("app.engine.batcher", "app.engine.drift", "app.errors", "app.machine", "app.manifests"),
            "app.results",
            "app.supervision.pulse",
            "app.tasks",
            "app.telemetry.metrics",
        },
    ),
    ("app.engine.drift", set()),
    (
        "app.engine.inspector",
        {
            *("app.engine.drift", "app.engine.worker", "app.errors", "app.json_files", "app.manifests"),
            *("app.supervision.pulse", "app.tasks"),
        },
    ),
    ("app.engine.builder", {"app.builds", "app.config", "app.errors", "app.manifests"}),
    ("app.engine.pace", set()),
    (
        "app.engine.changes",
        {
            *("app.engine.pace", "app.engine.worker", "app.errors", "app.machine", "app.manifests", "app.roles"),
            "app.builds",
        },
    ),
    ("app.engine.shadows", {"app.engine.worker", "app.errors", "app.results", "app.roles", "app.tasks"}),
    (
        "app.engine.server",
        {
            *("app.engine.protocol", "app.engine.batcher", "app.engine.worker", "app.engine.changes"),
            "app.engine.shadows",
            "app.engine.builder",
            "app.engine.inspector",
            *("app.errors", "app.results", "app.supervision.pulse", "app.tasks"),
        },
    ),
    (
        "app.engine.service",
        {
            *("app.supervision.pulse", "app.supervision.supervision"),
            *("app.builds", "app.config", "app.engine", "app.errors", "app.machine", "app.manifests", "app.sizing"),
            *(
                "app.vision.registry",
                "app.vision.samples",
                "app.telemetry.alerts",
                "app.telemetry.metrics",
                "app.forms",
            ),
        },
    ),
    ("app.standalone", {"app.config", "app.errors", "app.telemetry"}),
    ("app.engine.__main__", {"app.engine.service", "app.standalone"}),
    ("app.engine", set()),
    (
        "app.vision.samples",
        {
            "app.vision",
            "app.builds",
            "app.errors",
            "app.files",
            "app.images",
            "app.manifests",
            "app.results",
            "app.tasks",
        },
    ),
    *(
        (
            f"app.vision.{checked}",
            {"app.vision", "app.errors", "app.files", "app.images", "app.manifests", "app.results", "app.tasks"},
        )
        for checked in ("geometry", "known_answers", "proof", "reference")
    ),
    (
        "app.vision",
        {
            *("app.vision", "app.builds", "app.config", "app.errors", "app.files", "app.machine", "app.manifests"),
            *("app.images", "app.results", "app.tasks"),
        },
    ),
    (
        "app.shadowing",
        {"app.errors", "app.images", "app.manifests", "app.options", "app.results", "app.telemetry"},
    ),
    (
        "app.predictions",
        {
            *("app.config", "app.engine.client", "app.errors", "app.images", "app.manifests", "app.options"),
            *("app.budget", "app.cache", "app.decoding.decoder", "app.forms"),
            *("app.results", "app.roles", "app.routing", "app.shadowing"),
            *("app.tasks", "app.telemetry"),
        },
    ),
    ("app.jobs.jobs", {"app.config", "app.manifests"}),
    ("app.supervision.pulse", {"app.machine", "app.telemetry.metrics", "app.telemetry.shares"}),
    (
        "app.supervision",
        {"app.supervision", "app.config", "app.errors", "app.file_locks", "app.machine", "app.telemetry.shares"},
    ),
    ("app.jobs.packs", {"app.jobs.jobs", "app.errors"}),
    ("app.jobs.archives", {"app.jobs.packs", "app.errors"}),
    ("app.jobs.store", {"app.file_locks", "app.jobs.jobs", "app.jobs.packs", "app.errors", "app.machine"}),
    (
        "app.jobs.disk_store",
        {"app.jobs.jobs", "app.jobs.packs", "app.jobs.store", "app.database", "app.errors", "app.machine"},
    ),
    ("app.jobs.redis_link", {"app.circuit_breaker", "app.errors", "app.redis_connections"}),
    (
        "app.jobs.redis_store",
        {"app.jobs.jobs", "app.jobs.packs", "app.jobs.redis_link", "app.jobs.store", "app.errors"},
    ),
    (
        "app.jobs.stores",
        {
            *("app.jobs.disk_store", "app.jobs.jobs", "app.jobs.redis_link", "app.jobs.redis_store", "app.jobs.store"),
            "app.config",
        },
    ),
    (
        "app.jobs.worker",
        {
            "app.jobs.jobs",
            "app.jobs.pauses",
            "app.jobs.store",
            "app.errors",
            "app.predictions",
            "app.results",
            "app.tasks",
            "app.telemetry",
        },
    ),
    (
        "app.jobs.webhooks",
        {"app.jobs.jobs", "app.jobs.store", "app.config", "app.errors", "app.telemetry"},
    ),
    (
        "app.jobs.service",
        {"app.jobs", "app.config", "app.engine.client", "app.errors", "app.predictions", "app.telemetry"}
        | {"app.supervision.pulse"},
    ),
    ("app.jobs.__main__", {"app.jobs.service", "app.standalone"}),
    ("app.jobs", set()),
    ("app.versions", {"app.config", "app.engine.client", "app.errors", "app.roles"}),
    # The page of a failure is the one step back: see failures._page.
    (
        "app.guards",
        {
            *("app.guards", "app.cache.answers", "app.config", "app.errors", "app.sizing", "app.telemetry"),
            *("app.file_locks", "app.machine", "app.policy", "app.supervision"),
            *("app.budget", "app.counters", "app.pages.failures", "app.routing", "app.tokens"),
        },
    ),
    ("app.openapi.__main__", {"app.openapi", "app.factory", "app.config"}),
    ("app.openapi.operations", {"app.errors", "app.policy"}),
    (
        "app.openapi",
        {
            *("app.openapi", "app.guards.authentication", "app.guards.hosts", "app.guards.origins"),
            "app.guards.rates",
            *("app.config", "app.errors", "app.policy", "app.tasks", "app.__version__"),
        },
    ),
    (
        "app.api",
        {
            *("app.api", "app.guards", "app.openapi.operations", "app.policy", "app.predictions"),
            *("app.builds", "app.errors", "app.manifests", "app.options", "app.results", "app.__version__"),
            *(
                "app.overlays",
                "app.roles",
                "app.routing",
                "app.jobs.jobs",
                "app.jobs.packs",
                "app.jobs.archives",
                "app.jobs.store",
            ),
            *("app.jobs.webhooks", "app.telemetry"),
            *("app.cache.answers", "app.ensembles", "app.tasks", "app.upstreams"),
        },
    ),
    # The form of the page of jobs is the API's.
    (
        "app.pages.jobs",
        {
            *("app.pages", "app.api.job_requests", "app.api.jobs", "app.guards", "app.jobs", "app.openapi.operations"),
            *("app.errors", "app.predictions", "app.results", "app.tasks", "app.telemetry.shares"),
        },
    ),
    (
        "app.pages",
        {
            *("app.pages", "app.guards", "app.openapi.operations", "app.policy", "app.predictions"),
            "app.__version__",
            *("app.builds", "app.decoding.decoder", "app.errors", "app.manifests", "app.options", "app.overlays"),
            *("app.results", "app.tasks"),
        },
    ),
    (
        "app.ops",
        {
            *("app.ops", "app.openapi.operations", "app.predictions", "app.guards.measures", "app.telemetry"),
            *("app.file_locks", "app.guards.insiders"),
            "app.policy",
            "app.supervision.supervisor",
            "app.jobs.store",
            "app.guards.authentication",
            *("app.config", "app.errors", "app.machine", "app.__version__"),
        },
    ),
    (
        "app.factory",
        {
            *("app.api", "app.openapi", "app.pages", "app.ops", "app.guards", "app.predictions", "app.engine.client"),
            *("app.cache.answers", "app.ensembles", "app.policy"),
            *("app.engine.service", "app.config", "app.errors", "app.telemetry"),
            *("app.jobs.stores", "app.supervision.pulse"),
        },
    ),
    ("app.cli", None),
    ("app", set()),
    # The one who sends load knows the settings and nothing else of the service.
    ("loadtest", {"app.config", "app.errors"}),
    ("apache.jobs", {"app.config", "app.jobs.service", "app.telemetry"}),
    ("apache.engine", {"app.config", "app.engine.service", "app.telemetry"}),
    (
        "apache.reload",
        {
            *("app.certificates", "app.config", "app.errors", "app.file_locks", "app.permissions", "app.supervision"),
            "app.telemetry.shares",
        },
    ),
    (
        "apache",
        {
            "app.arrivals",
            *("app.certificates", "app.state_files"),
            "app.factory",
            "app.policy",
            "app.config",
            "app.errors",
            *("app.machine", "app.permissions"),
            "app.sizing",
            "app.telemetry",
            "app.guards.insiders",
            "app.ops.apache_log",
            "app.supervision.supervision",
            *("app.counters", "app.tokens"),
            "app.guards.admission",
            "app.guards.cors",
            "app.guards.gate",
            *("app.guards.headers", "app.guards.lengths"),
            "app.guards.notices",
            "app.guards.request_ids",
        },
    ),
]

WEB = ("app.factory", "app.api", "app.pages", "app.ops", "app.openapi", "app.guards", "app.policy")

# Packages of others, and who may know them.
ONLY: dict[str, tuple[str, ...]] = {
    "flask": (
        *WEB,
        "app.predictions",
        "app.cache",
        "app.cli",
        # What Locust's own page is made with.
        "loadtest.locustfile",
    ),
    "flask_caching": ("app.cache",),
    "cachelib": (),
    "werkzeug": (
        *WEB,
        "app.cli",
    ),
    "torch": ("app.vision", "app.engine.worker", "app.engine.service"),
    "torchvision": ("app.vision",),
    "safetensors": ("app.vision",),
    "openvino": ("app.vision",),
    "PIL": ("app.colours", "app.images", "app.overlays", "app.resampling", "app.pages.previews", "app.vision"),
    "cykooz_resizer": ("app.resampling",),
    "pydantic": ("app.config", "app.options", "app.tasks", "app.api", "app.openapi"),
    "dotenv": ("app.config",),
    "numpy": (
        *(
            "app.colours",
            "app.decoding",
            "app.images",
            "app.merging",
            "app.tasks",
            "app.api.inference",
            "app.api.tensors",
            "app.predictions",
            "app.engine",
            "app.vision",
        ),
        *("app.cache.keys", "app.overlays", "app.shadowing", "loadtest"),
    ),
    "socket": (
        *("app.decoding", "app.engine.client", "app.engine.server", "app.upstreams"),
        *("apache.preflight", "app.cli", "app.jobs.webhooks", "loadtest"),
    ),
    # gevent replaces parts of the standard library when Locust is imported: never in the service, nor in our driver.
    "locust": ("loadtest.locustfile", "loadtest.foreign_users"),
    "gevent": (
        "loadtest.locustfile",
        "loadtest.dispatcher",
        "loadtest.sender",
        "loadtest.precise_timer",
        "loadtest.connections",
        "loadtest.foreign_users",
    ),
    "geventhttpclient": ("loadtest.sender", "loadtest.connections"),
    "loadtest": ("loadtest",),
    # One way to hold a file; SQLite's transactions share one, and turns of a load test go by who removes the file.
    "fcntl": ("app.file_locks", "app.database", "loadtest.target_lock"),
    "scipy": ("loadtest.statistics",),
    # For the name of an error only: see test_nothing_is_unpickled.
    "sqlite3": ("app.database", "app.state_files", "app.counters"),
    "click": ("app.cli",),
    "rich": ("app.cli.terminal",),
    "pickle": ("app.vision.foreign",),
    "marshal": (),
    "shelve": (),
}
# The batcher is told the time and is locked by its owner.
BATCHER_KNOWS = {"__future__", "collections", "collections.abc", "dataclasses", "typing", "app.errors"}


def module_files() -> dict[str, Path]:
    """Module name → file, of app, apache and loadtest."""
    files = [path for room in ("app", "apache", "loadtest") for path in sorted((ROOT / room).rglob("*.py"))]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    return {**named, "apache.ops_wsgi": ROOT / "apache" / "ops.wsgi", "flask_wsgi": ROOT / "flask.wsgi"}


MODULES = module_files()


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere; a module of ours by its full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {_full(str(node.module), alias.name) for alias in node.names}
    return found


def _full(module: str, name: str) -> str:
    """``from app import images`` means app.images, ``from app.images import read`` means app.images too."""
    return f"{module}.{name}" if f"{module}.{name}" in MODULES or module == "app" else module


def is_below(module: str, parent: str) -> bool:
    return module == parent or module.startswith(parent + ".")


def allowed(module: str) -> set[str] | None:
    if module == "flask_wsgi":
        return {"app.factory"}
    targets = next(targets for name, targets in TABLE if is_below(module, name))
    # What is said to people is a value like a string; whoever may fail may say why.
    return targets if targets is None else targets | {"app.texts"}


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_stands_below_it(module: str) -> None:
    targets = allowed(module)
    ours = {name for name in imports(MODULES[module]) if is_below(name, "app") and not is_below(module, name)}

    assert targets is None or not {name for name in ours if not any(is_below(name, target) for target in targets)}


@pytest.mark.parametrize("package", ONLY)
def test_package_is_known_only_where_it_belongs(package: str) -> None:
    knowing = {module for module, path in MODULES.items() if any(is_below(name, package) for name in imports(path))}

    assert {module for module in knowing if not any(is_below(module, name) for name in ONLY[package])} == set()


def test_app_itself_imports_nothing() -> None:
    assert imports(MODULES["app"]) == set()


def test_batcher_knows_no_socket_no_torch_no_clock_and_no_thread() -> None:
    assert imports(MODULES["app.engine.batcher"]) <= BATCHER_KNOWS


def test_engine_service_imports_vision_and_torch_only_when_it_loads() -> None:
    top = {
        name.name
        for node in ast.parse(MODULES["app.engine.service"].read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }

    assert not top & {"torch", "load_model", "registry", "vision"}


def test_nothing_is_unpickled() -> None:
    for module, path in MODULES.items():
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}

            assert not re.fullmatch(r"(pickle|marshal)\.\w+|torch\.hub\.load\w*", called), (module, called)
            assert called != "torch.load" or keywords.get("weights_only") == "True", module


def test_apache_has_no_package_of_its_own() -> None:
    """mod_wsgi has a module of that name."""
    assert not (ROOT / "apache" / "__init__.py").exists()


def test_every_line_of_the_table_fits_a_module() -> None:
    unused = [name for name, _ in TABLE if not any(is_below(module, name) for module in MODULES)]

    assert [name for name in unused if name not in ("app.cli",)] == []


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_web_tier_loads_neither_torch_nor_vision_nor_the_engines_side(tmp_path: Path) -> None:
    fakes.write_model(tmp_path / "models")
    code = (
        "import sys; from pathlib import Path; from app import config; from app.factory import create_app;"
        "folder = Path(sys.argv[1]);"
        "settings = config.describe('test').model_copy(update={'state_dir': folder, 'models_dir': folder / 'models',"
        "'engine_socket': folder / 'engine.sock', 'engine_mode': 'service'});"
        "app = create_app(settings); app.test_client().get('/readyz');"
        "print(*(name for name in sys.modules if name.split('.')[0] in ('torch', 'torchvision', 'openvino')"
        " or name.startswith(('app.vision', 'app.engine.server', 'app.engine.worker'))))"
    )

    assert run(code, str(tmp_path)) == ""


def test_engines_side_loads_no_flask(tmp_path: Path) -> None:
    code = (
        "import sys; from app.engine import client, service, __main__;"
        "print(*(name for name in ('flask', 'werkzeug', 'PIL', 'torch', 'app.factory') if name in sys.modules))"
    )

    assert run(code) == ""
