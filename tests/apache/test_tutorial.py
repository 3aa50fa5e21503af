"""docs/tutorial.md from the first command to the last, as a newcomer types them, in folders that are removed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.apache import test_documented_commands as documented
from tests.servers import ROOT

DOCUMENT = "docs/tutorial.md"
TIMEOUT_SECONDS = 180
# Of make, where the load test did not meet the SLO.
SLOW = 2
# What is installed is known to be: the tests run with it.
INSTALL, NO_INSTALL = "override INSTALL := ", "override INSTALL := : "


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    place = servers.make_state_dir()
    shutil.copytree(ROOT / "models", place / "models")
    for name in ("drafts", "plugins"):
        (place / name).mkdir()
    makefile = (ROOT / "Makefile").read_text()
    assert INSTALL in makefile
    (place / "Makefile").write_text(makefile.replace(INSTALL, NO_INSTALL))
    yield place
    shutil.rmtree(place)


def test_tutorial_can_be_followed(folder: Path) -> None:
    blocks = documented.blocks_of(DOCUMENT)
    ours = {"MODELS_DIR": str(folder / "models"), "PLUGINS_DIR": str(folder / "plugins")}
    with servers.running(REQUEST_MAX_WAIT_SECONDS="60", **ours) as server:
        env = servers.environment("test", PORT=str(server.port), STATE_DIR=str(server.state_dir), **ours)
        for block in blocks:
            documented.check(block, run(block, server.url, folder, env))

    assert len(blocks) >= 7


def run(block: documented.Block, url: str, folder: Path, env: dict[str, str]) -> str:
    """What the block prints."""
    text = block.text.replace(documented.DOCUMENTED_ADDRESS, url).replace("ENV=dev", "ENV=test")
    for name in ("drafts", "plugins"):
        text = text.replace(f"{name}/", f"{folder}/{name}/")
    script = f'make() {{ command make -f {folder}/Makefile "$@"; }}\n{text}'
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if "make loadtest" in block.text and done.returncode == SLOW:
        # Beside other tests it may be slow; right it must be.
        assert re.search(r"wrong answers +PASS", done.stdout), done.stdout + done.stderr
    else:
        assert done.returncode == 0, f"{block.place}: {done.stderr}{done.stdout}"
    return done.stdout
