"""A full disk, a full /tmp and too few files: predictions go on, what needs room says so, nobody is ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bad_input, servers, small_disks

JPEG = {"Content-Type": "image/jpeg"}
STATE_BYTES = 96 * 1024**2
TMP_BYTES = 2 * 1024**2
REQUESTS = 40


@pytest.fixture
def tmp_dir() -> Iterator[Path]:
    """A /tmp of its own for the service, of little room."""
    with small_disks.mounted(TMP_BYTES, "1777") as path:
        yield path


def test_a_full_state_folder_stops_no_prediction(sample_path: Path) -> None:
    """And ends nobody, nor fills the log; beside honest callers: tests/attacks/test_full_state.py."""
    image = sample_path.read_bytes()
    settings = {"RATE_LIMIT_PER_ADDRESS": "1900/minute", "ENGINE_HANG_SECONDS": "4"}
    with (
        small_disks.mounted(STATE_BYTES, "755") as state_dir,
        servers.start("test", servers.free_port(), state_dir, **settings) as server,
    ):
        servers.wait_until(server.is_ready, servers.START_SECONDS, "/readyz")
        before = {role: server.pids(role) for role in ("web", "jobs")}
        assert server.ask("/v1/detect", image, JPEG).status == 200
        small_disks.fill(server.state_dir)
        lines = len(server.log().splitlines())

        answers = [server.ask("/v1/detect", _another(image, n), JPEG) for n in range(REQUESTS)]
        refused = server.ask("/v1/jobs", *_job(image))
        until = time.monotonic() + 6
        servers.wait_until(lambda: time.monotonic() > until, 10, "longer than a hang may last")

        assert {each.status for each in answers} == {200}
        assert (refused.status, refused.json["code"]) == (507, "storage_full")
        assert {role: server.pids(role) for role in before} == before
        new = [line for line in server.log().splitlines()[lines:] if "ACCESS" not in line]
        assert len(new) < REQUESTS / 4, "\n".join(new)


def _another(image: bytes, number: int) -> bytes:
    """Other bytes, the same picture: nothing kept is found for it."""
    return image + b"\0" * number


def _job(image: bytes) -> tuple[bytes, dict[str, str]]:
    body, content_type = bad_input.multipart(image)
    return body, {"Content-Type": content_type}


def test_a_full_tmp_is_told_and_small_requests_go_on(tmp_dir: Path, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    large, content_type = bad_input.multipart(image + b"\0" * 1_500_000)
    with servers.running("test", TMPDIR=str(tmp_dir)) as server:
        assert server.ask("/v1/detect", large, {"Content-Type": content_type}).status == 200
        small_disks.fill(tmp_dir)

        full = server.ask("/v1/detect", large, {"Content-Type": content_type})
        small = server.ask("/v1/detect", image, JPEG)

    assert (full.status, full.json["code"]) == (507, "temporary_full")
    assert small.status == 200


def test_too_few_files_stop_the_start_with_one_line() -> None:
    state_dir = servers.make_state_dir()
    environment = servers.environment(
        "prod", PORT=str(servers.free_port()), STATE_DIR=str(state_dir), SECRET_KEY="b0e6f4a2197c4d83" * 2
    )
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 40; exec {servers.ROOT / 'apache' / 'serve.sh'}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line] == [done.stderr.strip()]
    assert "open files" in done.stderr
    assert "found a limit of 40" in done.stderr
