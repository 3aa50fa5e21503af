"""Root starts the service in a folder that the service user may write: nothing of root's is touched through it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import servers

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root hands over to another user")

USER = "www-data"
WORDS = "root's own words\n"


@pytest.fixture
def victim() -> Iterator[Path]:
    """A folder of root's with a file in it, which the service user wants."""
    folder = servers.make_state_dir()
    (folder / "file").write_text(WORDS)
    yield folder
    assert [each.name for each in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == WORDS
    assert {path.lstat().st_uid for path in (folder, folder / "file")} == {0}
    shutil.rmtree(folder)


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A state folder that is the service user's already, as after a first start."""
    path = servers.make_state_dir()
    shutil.chown(path, USER, USER)
    yield path
    if path.is_symlink():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def serve(state_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Render and test the configuration, as each start does first."""
    return subprocess.run(
        [servers.ROOT / "apache" / "serve.sh", "--check", *options],
        env=servers.environment("test", PORT=str(servers.free_port()), STATE_DIR=str(state_dir)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def link_run(state: Path, victim: Path) -> None:
    (state / "run").symlink_to(victim)


def link_below_run(state: Path, victim: Path) -> None:
    (state / "run").mkdir()
    for name in ("refused", "metrics", "httpd"):
        (state / "run" / name).symlink_to(victim)


def link_files(state: Path, victim: Path) -> None:
    for name in ("tokens.sqlite3", "roles.json", "limits.sqlite3-wal"):
        (state / name).symlink_to(victim / "file")


def second_name(state: Path, victim: Path) -> None:
    (state / "tokens.sqlite3").hardlink_to(victim / "file")


def link_state(state: Path, victim: Path) -> None:
    state.rmdir()
    state.symlink_to(victim)
    os.lchown(state, pwd.getpwnam(USER).pw_uid, 0)


def link_out_of_a_folder(state: Path, victim: Path) -> None:
    (state / "cache").mkdir()
    shutil.chown(state / "cache", "root")
    (state / "cache" / "answers.sqlite3").symlink_to(victim / "file")
    (state / "cache" / "more").symlink_to(victim)


@pytest.mark.parametrize(
    "plant",
    [link_run, link_below_run, link_files, second_name, link_state, link_out_of_a_folder],
    ids=lambda f: f.__name__,
)
def test_no_link_leads_root_out_of_the_state_folder(
    plant: Callable[[Path, Path], None], state_dir: Path, victim: Path
) -> None:
    plant(state_dir, victim)

    serve(state_dir)

    # `victim` is looked at when the test ends.
    if (state_dir / "tokens.sqlite3").exists() and not (state_dir / "tokens.sqlite3").is_symlink():
        (state_dir / "tokens.sqlite3").unlink()


def test_no_process_of_the_service_is_roots() -> None:
    with servers.running("test") as server:
        pids = [server.process.pid, server.engine_pid(), *server.pids("web"), *server.pids("ops")]
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in pids}
        below_state = {path.lstat().st_uid for path in (server.state_dir / "run").rglob("*")}

    assert owners == below_state == {pwd.getpwnam(USER).pw_uid}


def test_what_a_command_of_root_left_is_the_services_at_the_next_start(state_dir: Path) -> None:
    for name in ("tokens.sqlite3", "roles.json"):
        (state_dir / name).write_text("{}")
    (state_dir / "run" / "httpd").mkdir(parents=True)
    (state_dir / "kept-by-root.txt").write_text("not ours")
    (state_dir / "tokens.sqlite3").unlink()

    done = serve(state_dir)

    assert done.returncode == 0, done.stderr
    assert (state_dir / "roles.json").owner() == (state_dir / "run" / "httpd").owner() == USER
    assert (state_dir / "kept-by-root.txt").owner() == "root"


def test_what_root_compiled_under_a_strict_umask_is_in_nobodys_way(state_dir: Path) -> None:
    left = servers.ROOT / "app" / "__pycache__" / "left_by_root.cpython-311.pyc"
    left.parent.mkdir(exist_ok=True)
    left.touch(mode=0o600)
    try:
        done = serve(state_dir)
    finally:
        left.unlink()

    assert done.returncode == 0, done.stderr


def test_a_folder_of_others_is_not_given_away(victim: Path) -> None:
    (victim / "www").mkdir()

    done = serve(victim)

    (victim / "www").rmdir()
    assert done.returncode == 2
    assert f"STATE_DIR is {victim}, which belongs to root and holds www/, which is not the service's." in done.stderr


def test_a_link_of_roots_to_the_state_folder_is_followed(state_dir: Path) -> None:
    folder = servers.make_state_dir()
    (folder / "state").symlink_to(state_dir)

    done = serve(folder / "state")

    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    assert (state_dir / "run" / "httpd" / "httpd.conf").owner() == USER


def test_a_command_of_root_follows_no_link_either(state_dir: Path, victim: Path) -> None:
    (state_dir / "tokens.sqlite3").symlink_to(victim / "new.sqlite3")

    done = subprocess.run(
        [servers.ROOT / ".venv/bin/python", "-m", "app.cli", "token", "create", "me"],
        cwd=servers.ROOT,
        env=servers.environment("test", STATE_DIR=str(state_dir)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_make_stop_ends_no_process_but_the_services(state_dir: Path) -> None:
    (state_dir / "run" / "httpd").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        (state_dir / "run" / "httpd" / "httpd.pid").write_text(str(other.pid))
        done = subprocess.run(
            [servers.ROOT / "apache" / "stop.sh"],
            env=servers.environment("test", STATE_DIR=str(state_dir)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        is_running = other.poll() is None
        other.send_signal(signal.SIGKILL)

    assert done.returncode == 1
    assert is_running
    assert f"process {other.pid}, which {state_dir}/run/httpd/httpd.pid names, is not this service" in done.stderr
