"""Process 1 of a release on a container host: who is not named waits, and who is never ready gives way."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import ROOT, wait_until

SECONDS = 20.0


@dataclass
class Release:
    """Number 2, in a folder of its own with a service that only says that it serves."""

    home: Path

    def name(self, link: str, number: int) -> None:
        (self.home / link).symlink_to(f"{number}/172.20.0.9:8000")

    def named(self, link: str) -> str:
        return str((self.home / link).readlink()).split("/")[0]

    @contextmanager
    def started(self, health: str) -> Iterator[subprocess.Popen[str]]:
        """``health``: the words of a shell in the place of docker/health.py."""
        python = self.home / "bin" / "python"
        python.write_text(f"#!/bin/sh\n{health}\n")
        python.chmod(0o755)
        settings = {"EDGE_FOLDER": str(self.home), "CASK_RELEASE": "2", "STANDS_BY": str(self.home / "stands-by")}
        process = subprocess.Popen(
            ["bash", "docker/stand-by.sh"],
            cwd=self.home,
            env={"PATH": f"{python.parent}:/usr/bin:/bin", **settings},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def release(tmp_path: Path) -> Release:
    for folder in ("apache", "bin", "docker"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "docker" / "stand-by.sh", tmp_path / "docker")
    (tmp_path / "apache" / "serve.sh").write_text("echo serves >served\n")
    return Release(tmp_path)


def test_who_is_named_serves_and_is_counted_until_it_is_ready(release: Release) -> None:
    release.name("current", 2)

    with release.started("exit 1") as process:
        assert process.wait(SECONDS) == 0

    assert (release.home / "served").exists()
    assert (release.home / "tries-2").read_text() == "1\n"

    with release.started("exit 0") as process:
        assert process.wait(SECONDS) == 0
        wait_until(lambda: not (release.home / "tries-2").exists(), SECONDS, "the count to be over")


def test_who_is_tried_serves_and_is_not_counted(release: Release) -> None:
    release.name("current", 1)
    release.name("trying", 2)

    with release.started("exit 1") as process:
        assert process.wait(SECONDS) == 0

    assert (release.home / "served").exists()
    assert not (release.home / "tries-2").exists()


def test_who_is_not_named_stands_by_until_it_is(release: Release) -> None:
    release.name("current", 1)

    with release.started("exit 0") as process:
        wait_until((release.home / "stands-by").exists, SECONDS, "it to stand by")
        assert process.poll() is None
        release.name("trying", 2)
        assert process.wait(SECONDS) == 0

    assert (release.home / "served").exists()
    assert not (release.home / "stands-by").exists()


def test_who_was_not_ready_three_times_gives_way_to_the_one_before(release: Release) -> None:
    release.name("current", 2)
    release.name("previous", 1)
    (release.home / "tries-2").write_text("3\n")

    with release.started("exit 0") as process:
        wait_until((release.home / "stands-by").exists, SECONDS, "it to stand by")
        process.terminate()
        assert process.wait(SECONDS) == 0

    assert release.named("current") == "1"
    assert not (release.home / "served").exists()
    assert "release 2 was not ready 3 times" in (release.home / "history").read_text()


def test_with_nobody_before_it_tries_on(release: Release) -> None:
    release.name("current", 2)
    (release.home / "tries-2").write_text("7\n")

    with release.started("exit 1") as process:
        assert process.wait(SECONDS) == 0

    assert (release.home / "served").exists()
