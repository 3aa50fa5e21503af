"""`make backup` and its kin are about the container where there is one: what they ask of Docker, seen by a stand-in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from app.config import ROOT

# Says what it was asked, and has a volume and a container of this project.
DOCKER = r"""#!/bin/bash
echo "docker $*" >>"$SEEN"
case "$1 ${2:-}" in
    "version --format") echo 20.10.24 ;;
    "volume inspect") [ "$HAS" = yes ] ;;
    "ps -aq") echo 0123abc ;;
    "inspect -f") echo "$RUNS" ;;
    "exec "*) cat >/dev/null; echo archive || exit 1; exit "${EXEC_STATUS:-0}" ;;
    "run "*) cat >/dev/null
        # As `restore` does in the folder that it is given.
        env="$(sed -n 's|.* --volume \([^ ]*\):/app/env .*|\1|p' <<<"$*")"
        if [ -n "$env" ] && [ -e "$env/local.env" ]; then
            mkdir -p "$env/.before-restore-1"
            mv "$env/local.env" "$env/.before-restore-1/"
            echo PORT=2 >"$env/local.env"
        fi ;;
esac
"""


# What a test gives to the stand-in.
ENVIRON: dict[str, str] = {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    (tmp_path / "env").mkdir()
    (tmp_path / "passphrase").write_text("correct horse battery\n")
    (tmp_path / "cask.tar").write_text("archive\n")
    return tmp_path


def run(
    folder: Path, *words: str, runs: str = "true", has: str = "yes", where: str = ""
) -> subprocess.CompletedProcess[str]:
    environ = {"WHERE": where} | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SEEN": str(folder / "seen"),
        "RUNS": runs,
        "HAS": has,
    }
    environ |= ENVIRON
    environ |= {"ENV": "prod", "ENV_DIR": str(folder / "env"), "SECRETS_DIR": str(folder / "secrets")}
    command = ["bash", str(ROOT / "docker" / "steps" / "backup.sh"), *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def seen(folder: Path) -> str:
    return (folder / "seen").read_text()


def test_a_backup_is_streamed_out_of_the_container_for_its_owner_alone(folder: Path) -> None:
    made = folder / "out" / "cask.tar"

    done = run(folder, "create", str(made), "--only", "state")

    assert done.returncode == 0, done.stderr
    assert made.read_text() == "archive\n"
    assert made.stat().st_mode & 0o077 == 0
    assert "exec --interactive 0123abc python -m app.cli backup create - --only state" in seen(folder)


def test_the_passphrase_goes_by_standard_input(folder: Path) -> None:
    done = run(folder, "create", str(folder / "made"), "--passphrase-file", str(folder / "passphrase"))

    assert done.returncode == 0, done.stderr
    assert "--passphrase-file -" in seen(folder)
    assert "horse" not in seen(folder)


def test_a_backup_is_checked_without_network(folder: Path) -> None:
    assert run(folder, "check", str(folder / "cask.tar")).returncode == 0

    assert "--network none" in seen(folder)
    assert "backup check -" in seen(folder)


def test_nothing_is_restored_below_a_running_container(folder: Path) -> None:
    refused = run(folder, "restore", str(folder / "cask.tar"), "--yes")

    assert refused.returncode == 2
    assert "needs the container to be stopped" in refused.stderr
    assert "docker run" not in seen(folder)


def test_state_settings_and_secrets_are_put_back_below_a_stopped_one(folder: Path) -> None:
    done = run(folder, "restore", str(folder / "cask.tar"), "--yes", runs="false")

    assert done.returncode == 0, done.stderr
    assert "--volume cask_state:/var/lib/cask" in seen(folder)
    assert f"--volume {folder}/secrets:/app/secrets" in seen(folder)
    assert "restore - --yes --only state --only settings --only secrets" in seen(folder)
    assert "Next: make up ENV=prod" in done.stdout


def test_settings_of_a_site_are_put_back_where_their_link_leads(folder: Path) -> None:
    (folder / "local.env").write_text("PORT=1\n")
    (folder / "env" / "local.env").symlink_to("../local.env")

    done = run(folder, "restore", str(folder / "cask.tar"), "--yes", runs="false")

    assert done.returncode == 0, done.stderr
    assert (folder / "env" / "local.env").is_symlink()
    assert (folder / "local.env").read_text() == "PORT=2\n"
    assert (folder / ".before-restore-1" / "local.env").read_text() == "PORT=1\n"


def test_a_backup_that_is_not_whole_leaves_nothing_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folder / "out" / "cask.tar"
    monkeypatch.setitem(ENVIRON, "EXEC_STATUS", "1")

    done = run(folder, "create", str(made))

    assert done.returncode == 1
    assert f"needs a whole backup in {made}" in done.stderr
    assert list(made.parent.iterdir()) == []
    made.write_text("mine")
    assert "needs FILE to be new" in run(folder, "create", str(made)).stderr
    assert "needs create, check or restore, found «»" in run(folder).stderr


def test_an_empty_machine_is_filled_for_a_container_where_that_is_asked_for(folder: Path) -> None:
    done = run(folder, "restore", str(folder / "cask.tar"), "--yes", runs="false", has="no", where="container")

    assert done.returncode == 0, done.stderr
    assert "volume create --label com.docker.compose.project=cask" in seen(folder)
    assert "--volume cask_state:/var/lib/cask" in seen(folder)
    refused = run(folder, "restore", str(folder / "cask.tar"), where="there")
    assert refused.returncode == 2
    assert "needs WHERE to be here or container, found «there»" in refused.stderr
