"""What the first command meets on machines of others: where torch comes from, paths, and strict masks."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers

REQUIREMENTS = servers.ROOT / "requirements"
LOCK = REQUIREMENTS / "torch-cpu.txt"
# Sources torch.sh as install.sh does, with pip into a folder of its own.
INSTALL = """
set -eu
. requirements/torch.sh
pip_install() { "$PIP_PYTHON" -m pip install --quiet --require-hashes --target "$TARGET" "$@"; }
with_torch_index pip_install --no-deps
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the locks and the installer, where a wheel of some bytes stands for torch's 190 MB."""
    folder = tmp_path / "checkout"
    shutil.copytree(REQUIREMENTS, folder / "requirements")
    wheel = tmp_path / "index" / "whl" / "cpu" / "torch" / "torch-2.13.0+cpu-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    about = "torch-2.13.0+cpu.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("torch/__init__.py", "")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = folder / "requirements" / "torch-cpu.txt"
    lock.write_text(re.sub(r"(?s)torch==.*", f"torch==2.13.0+cpu --hash=sha256:{digest}\n", lock.read_text()))
    # PyPI knows the name, and no CPU build of it.
    (tmp_path / "index" / "simple" / "torch").mkdir(parents=True)
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index without a CPU build at /simple, and PyTorch's own at /whl/cpu."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(script: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PIP_PYTHON": sys.executable, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_torch_comes_from_pytorchs_index_where_pips_own_has_no_cpu_build(
    checkout: Path, index: str, tmp_path: Path
) -> None:
    bare = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{index}/simple", "TARGET": str(tmp_path / "installed")}

    done = run(INSTALL, checkout, TORCH_INDEX_URL=f"{index}/whl/cpu", **bare)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "installed" / "torch" / "__init__.py").exists()


def test_where_nobody_has_torch_one_line_says_so(checkout: Path, index: str, tmp_path: Path) -> None:
    bare = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{index}/simple", "TARGET": str(tmp_path / "installed")}
    words = f"{INSTALL.rstrip()} || {{ torch_missing cp311 x86_64; torch_next cp311 x86_64; }}"

    done = run(words, checkout, TORCH_INDEX_URL=f"{index}/nowhere", **bare)

    assert f"for cp311 on x86_64, found none where pip looks, nor at {index}/nowhere." in done.stdout
    assert "TORCH_INDEX_URL" in done.stdout


def test_the_lock_has_a_hash_of_each_python_that_it_names() -> None:
    text = LOCK.read_text()
    named = re.findall(r"^# has: (.*)$", text, re.M)[0].split()
    hashes = re.findall(r"sha256:([0-9a-f]{64})", text)

    assert named == [f"cp{v}-{a}" for a in ("x86_64", "aarch64") for v in ("311", "312", "313")]
    assert len(set(hashes)) == len(hashes) == len(named)
    assert set(hashes) <= set(re.findall(r"sha256:([0-9a-f]{64})", (REQUIREMENTS / "serve.txt").read_text()))


def test_a_python_without_a_hash_is_named_before_anything_is_fetched() -> None:
    done = run(". requirements/torch.sh; torch_is_locked cp315 x86_64 || torch_missing cp315 x86_64", servers.ROOT)

    assert "needs the hash of torch's CPU build for cp315 on x86_64, found those of: cp311-x86_64" in done.stdout


@pytest.mark.parametrize("name", ["with space", "a;b", "a$b", "it's", 'a"b', "(a)"])
def test_a_path_that_apaches_scripts_cannot_take_is_refused_first(name: str, open_folder: Path) -> None:
    # A short path: that of a long one is refused for its length.
    folder = open_folder / name
    shutil.copytree(REQUIREMENTS, folder / "requirements")

    done = run("bash requirements/install.sh serve", folder)
    started = subprocess.run(
        [servers.ROOT / "apache" / "serve.sh"],
        env=servers.environment("test", PORT=str(servers.free_port()), STATE_DIR=str(folder / "state")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert f"found «{folder}»" in done.stderr
    assert not (folder / ".venv").exists()
    assert started.returncode == 2
    assert "Choose another." in started.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root hands over to a user who may not read")
def test_a_checkout_made_with_a_strict_mask_is_one_line_and_no_crash_loop() -> None:
    folder = servers.make_state_dir()
    subprocess.run(["git", "clone", "-q", servers.ROOT, folder / "cask"], check=True)
    (folder / "cask" / ".venv").symlink_to((servers.ROOT / ".venv").resolve())
    (folder / "cask" / "app" / "factory.py").chmod(0o600)

    done = subprocess.run(
        [folder / "cask" / "apache" / "serve.sh"],
        env=servers.environment("test", PORT=str(servers.free_port()), STATE_DIR=str(folder / "state")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    shutil.rmtree(folder)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "may not read" in line
    assert "factory.py. Open the folder: chmod -R go+rX" in line


def test_a_state_folder_may_have_a_name_in_any_language() -> None:
    folder = servers.make_state_dir()

    done = subprocess.run(
        [servers.ROOT / "apache" / "serve.sh", "--check"],
        env=servers.environment("test", PORT=str(servers.free_port()), STATE_DIR=str(folder / "Zustände")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr


def test_a_stop_during_the_start_is_heard() -> None:
    folder = servers.make_state_dir()
    with servers.start("test", servers.free_port(), folder) as server:
        # Bash runs by now; Apache does not yet.
        servers.wait_until((folder / "run" / "metrics").exists, 30, "the start to begin")
        server.process.send_signal(signal.SIGWINCH)
        status = server.process.wait(30)

    shutil.rmtree(folder)
    assert status == 0
