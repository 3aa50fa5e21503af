"""The units of systemd and of podman: as systemd reads them, and with what the container has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.servers import ROOT

UNITS = ROOT / "docker" / "systemd"
QUADLET = ROOT / "docker" / "podman" / "cask.container"
# systemd's own scale of ten: 10 is a service that may do everything; below 2 it says OK.
MOST_EXPOSED = "2.0"


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    for unit in UNITS.glob("*.service"):
        text = unit.read_text().replace("/srv/cask/apache/serve.sh", "/bin/true")
        (tmp_path / unit.name).write_text(text.replace("/srv/cask/.venv/bin/python", "/bin/true"))

    # A machine without Docker has no such unit.
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    done = analyze("verify", "--man=no", *sorted(tmp_path.glob("cask*.service")))

    assert [line for line in done.stderr.splitlines() if "cask" in line] == []
    assert done.returncode == 0


def test_service_may_do_little(tmp_path: Path) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", UNITS / "cask.service")

    level = next(line for line in done.stdout.splitlines() if "Overall exposure level" in line)
    assert level.split(":")[1].split()[0] < MOST_EXPOSED


def test_units_stop_as_the_container_does() -> None:
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]["cask"]
    service, quadlet = (UNITS / "cask.service").read_text(), QUADLET.read_text()

    assert f"KillSignal={compose['stop_signal']}\n" in service
    assert f"--stop-signal={compose['stop_signal']} " in quadlet
    assert f"TasksMax={compose['pids_limit']}\n" in service
    assert f"--pids-limit={compose['pids_limit']}\n" in quadlet
    assert f"Tmpfs={compose['tmpfs'][0]}\n" in quadlet
    assert f"User={compose['user'].split(':')[0]}\n" in quadlet
