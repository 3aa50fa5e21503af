"""The configuration that Apache would start from, as text: the lines that matter, tested as one would a function."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from app import config
from tests import servers


def _load_configure() -> ModuleType:
    # apache/ is no package: mod_wsgi has a module of that name.
    spec = importlib.util.spec_from_file_location("cask_configure", servers.ROOT / "apache" / "configure.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


configure = _load_configure()

# As the service user, as serve.sh does it: Apache refuses to be tried as root.
CODE = "import sys; sys.path.insert(0, 'apache'); import configure; from pathlib import Path; from app import config"
RENDER = (
    f"{CODE}; settings = config.load();"
    " configure.render(settings, Path(sys.argv[1]), configure.known_app.ask(settings, 1).facts)"
)

Render = Callable[..., str]


@pytest.fixture
def render(open_folder: Path) -> Render:
    def render(env: str = "test", **settings: str) -> str:
        given = {"STATE_DIR": str(open_folder), "SECRET_KEY": "f3b1c09a77e24d18b6a0" * 2, **settings}
        user = servers.service_user()
        if user:
            shutil.chown(open_folder, user)
        root = open_folder / "httpd"
        # configtest runs inside: whatever is returned is accepted by Apache.
        done = subprocess.run(
            [sys.executable, "-c", RENDER, str(root)],
            cwd=servers.ROOT,
            env=servers.environment(env, **given),
            user=user or None,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return "".join((root / name).read_text() for name in ("definitions.conf", "httpd.conf"))

    return render


def test_limits_stand_before_the_first_virtual_host(render: Render) -> None:
    text = render()

    assert "conf/limits.conf" in text
    assert text.index("conf/limits.conf") < text.index("<VirtualHost")


def test_no_mount_is_no_empty_value_which_apache_takes_for_not_defined(render: Render) -> None:
    assert re.findall(r'^Define CASK_MOUNTS "(.*)"$', render(), re.M) == ["|_errors/"]


def test_module_knows_the_handler_of_the_app_to_which_it_gives_bodies_whole(render: Render) -> None:
    source = (servers.ROOT / "apache" / "modules" / "mod_arrivals.c").read_text()
    (begins,) = re.findall(r'^#define WSGI "(.+)"$', source, re.M)

    handlers = re.findall(r"\[H=([\w-]+)\]", render())

    assert handlers
    assert all(handler.startswith(begins) for handler in handlers)


def test_pool_has_one_size_and_room_for_all_connections(render: Render) -> None:
    text = render(SERVER_MAX_CONNECTIONS="255", WEB_PROCESSES="2", WEB_THREADS="16")
    pool = (servers.ROOT / "apache" / "conf" / "pool.conf").read_text()

    processes, threads, connections = (
        int(re.findall(rf'^Define CASK_SERVER_{name} "(\d+)"$', text, re.M)[0])
        for name in ("PROCESSES", "THREADS", "MAX_CONNECTIONS")
    )
    assert processes * threads == connections >= 255
    assert "StartServers ${CASK_SERVER_PROCESSES}" in pool
    assert "ServerLimit ${CASK_SERVER_PROCESSES}" in pool
    assert text.index("conf/pool.conf") > text.rindex("ThreadsPerChild")


def test_web_group_has_the_processes_and_threads_of_the_settings(render: Render) -> None:
    text = render(WEB_PROCESSES="3", WEB_THREADS="7", SERVER_MAX_CONNECTIONS="64")

    web = text.split("WSGIDaemonProcess 'web'")[1]
    assert "processes=3" in web
    assert "threads=7" in web
    assert "locale='C.UTF-8'" in web


def test_every_group_runs_in_the_main_interpreter(render: Render) -> None:
    text = render() + (servers.ROOT / "apache/conf/ops.conf").read_text()

    groups = re.findall(r"application-group=(\S+)", text)
    assert groups
    assert set(groups) == {"%{GLOBAL}"}


def test_engine_is_a_service_script_without_request_threads(render: Render) -> None:
    text = render()

    service = text.split("WSGIDaemonProcess 'service:engine'")[1]
    assert "threads=0" in service
    assert "apache/engine.py" in service


@pytest.mark.parametrize(("env", "is_json"), [("dev", False), ("prod", True)])
def test_log_format_follows_the_environment(render: Render, env: str, is_json: bool) -> None:
    assert ("Define CASK_LOG_JSON\n" in render(env)) is is_json


@pytest.mark.parametrize(("env", "has_hsts"), [("dev", False), ("prod", True)])
def test_hsts_is_sent_where_the_environment_says(render: Render, env: str, has_hsts: bool) -> None:
    assert ("Define CASK_HSTS\n" in render(env)) is has_hsts


def test_forwarded_headers_are_believed_from_named_proxies_only(render: Render) -> None:
    settings = config.load({"ENV": "test", "TRUSTED_PROXIES": "10.0.0.7"})

    without = configure.express_options(config.load({"ENV": "test"}), Path("x"))
    with_proxy = configure.express_options(settings, Path("x"))

    assert not any("trust-proxy" in option for option in without)
    assert "--trust-proxy-header=X-Forwarded-Proto" in with_proxy
    assert 'Define CASK_IS_TRUSTED "false"' in render()
    text = render(TRUSTED_PROXIES="10.0.0.7,fd00::/8")
    assert (
        "Define CASK_IS_TRUSTED \"%{CONN_REMOTE_ADDR} -ipmatch '10.0.0.7' || %{CONN_REMOTE_ADDR} -ipmatch 'fd00::/8'\""
        in text
    )


def test_every_status_that_apache_answers_has_a_problem_document(render: Render, open_folder: Path) -> None:
    import json
    import tomllib

    render()
    table = tomllib.loads((servers.ROOT / "apache" / "errors.toml").read_text())

    for status, words in table.items():
        document = json.loads(
            (open_folder / "httpd/errors" / f"{status}.json")
            .read_text()
            .replace('\\"', "")
            .replace('"none"', "none")
            .replace('"HTTP_X_REQUEST_ID"', "")
        )
        assert document["status"] == int(status[:3])
        assert document["code"] == words["code"]
