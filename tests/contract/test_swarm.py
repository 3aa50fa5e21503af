"""docker/swarm: what makes updates and lost nodes harmless stands in the file; HAProxy takes its configuration."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import ROOT, load

FOLDER = ROOT / "docker" / "swarm"
STACK: dict[str, Any] = yaml.safe_load((FOLDER / "stack.yml").read_text())
CONFIGURATIONS = sorted([*(ROOT / "docs/proxies").glob("haproxy*.cfg"), *FOLDER.glob("*.cfg")])


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_an_update_brings_the_new_task_first_and_the_old_settings_back() -> None:
    deploy = STACK["services"]["cask"]["deploy"]

    assert deploy["update_config"].items() >= {"order": "start-first", "failure_action": "rollback"}.items()
    assert deploy["rollback_config"]["order"] == "start-first"
    assert deploy["restart_policy"]["condition"] == "any"


def test_each_node_has_one_task_and_a_new_one_of_settings_touches_no_edge() -> None:
    deploy = STACK["services"]["cask"]["deploy"]

    assert deploy["mode"] == "global"
    assert {name: each["name"] for name, each in STACK["configs"].items()} == {
        "haproxy": "cask_haproxy_${EDGE_RELEASE:-1}",
        "settings": "cask_settings_${RELEASE:-1}",
    }


def test_nothing_needs_the_kernel_to_balance() -> None:
    services = STACK["services"]

    assert {each["deploy"]["endpoint_mode"] for each in services.values()} == {"dnsrr"}
    assert [port["mode"] for each in services.values() for port in each.get("ports", [])] == ["host"]
    assert services["edge"]["deploy"]["mode"] == "global"


def test_tasks_may_do_nothing_but_serve_and_have_time_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    service = STACK["services"]["cask"]
    monkeypatch.setenv("ENV", "test")

    assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"])
    assert seconds(service["stop_grace_period"]) > 5 + load().server_shutdown_seconds
    assert {each["mode"] for each in service["secrets"]} == {0o400}
    # HAProxy finds by its own questions who is not ready; a busy machine keeps its tasks.
    check = service["healthcheck"]
    assert seconds(check["interval"]) * check["retries"] >= 30


def test_the_command_ends_as_apache_does(tmp_path: Path) -> None:
    """A start that fails is told by its status, which makes Swarm take an update back; a stop is graceful."""
    shell, option, command = STACK["services"]["cask"]["command"]
    command = command.replace("$$", "$").replace("sleep 5", "sleep 0.1")
    serve = tmp_path / "apache" / "serve.sh"
    serve.parent.mkdir()

    def ended(script: str, *, is_stopped: bool) -> int:
        serve.write_text(f"#!/bin/bash\n{script}\n")
        serve.chmod(0o755)
        with subprocess.Popen([shell, option, command], cwd=tmp_path, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            if is_stopped:
                assert process.stdout.readline() == b"serving\n"
                process.terminate()
            return process.wait(30)

    assert ended("exit 2", is_stopped=False) == 2
    assert ended('trap "exit 7" WINCH; echo serving; while true; do sleep 0.1; done', is_stopped=True) == 7


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_haproxy_takes_the_configuration(path: Path) -> None:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("no haproxy here: apt-get install haproxy (requirements/install.sh dev does)")

    done = subprocess.run([program, "-c", "-f", path], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
