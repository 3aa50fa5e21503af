"""STATE_DIR is full: predictions go on; what must be written is refused in words, and works again with room."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests import bad_input, servers, small_disks
from tests.attacks.attack import attack
from tests.servers import Server, wait_until

JPEG = {"Content-Type": "image/jpeg"}
STATE_BYTES = 96 * 1024**2
SECONDS = 8.0
# Of a body: more than is kept in memory, so it wants a file in STATE_DIR.
LARGE_BYTES = 900_000
AGAIN_SECONDS = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Its STATE_DIR has little room. Counts of callers, tokens and jobs are all kept there."""
    settings = {"RATE_LIMIT_PER_ADDRESS": "100000/minute", "AUTHENTICATION": "required", "ENGINE_HANG_SECONDS": "4"}
    with small_disks.mounted(STATE_BYTES, "755") as state_dir:
        token = servers.make_token(state_dir)
        with servers.start("test", servers.free_port(), state_dir, **settings) as running:
            wait_until(running.is_ready, servers.START_SECONDS, "/readyz")
            running.token = token
            yield running


def test_a_full_state_folder_holds_up_no_prediction_and_is_got_over(server: Server) -> None:
    image = bad_input.good_image()
    pids = {role: server.pids(role) for role in ("web", "jobs")}
    small, large, jobs = Counter[int](), Counter[int](), Counter[str]()

    with attack("STATE_DIR full", server) as running:
        small_disks.fill(server.state_dir)
        number, until = 0, time.monotonic() + SECONDS
        while time.monotonic() < until:
            number += 1
            small[server.ask("/v1/detect", image + b"\0" * number, JPEG).status] += 1
            large[server.ask("/v1/detect", image + b"\0" * (LARGE_BYTES + number), JPEG).status] += 1
            refused = server.ask("/v1/jobs", image, JPEG)
            jobs[f"{refused.status} {refused.json.get('code')}"] += 1
        pids_then = {role: server.pids(role) for role in pids}
        small_disks.clear(server.state_dir)

    running.figures.require(live=1.0)
    assert running.figures.recovery_seconds == 0
    assert (set(small), set(large), set(jobs)) == ({200}, {200}, {"507 storage_full"}), (small, large, jobs)
    assert pids_then == pids
    job_id = server.make_job(image, 2)
    wait_until(lambda: server.ask(f"/v1/jobs/{job_id}").json["state"] == "succeeded", AGAIN_SECONDS, "a job again")
