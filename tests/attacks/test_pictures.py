"""Pictures that are small and dear to read, by every way in: the others are answered, and each ends at its deadline."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests import bad_input, servers
from tests.attacks import hostile
from tests.attacks.attack import attack
from tests.servers import Server, wait_until

AT_ONCE = 9
# Long enough for some forty honest requests at least.
ATTACK_SECONDS = 6.0
TIMEOUT_SECONDS = 2.0
# A job that is not hostile: its share of the time that a hostile one before it may take.
JOB_SECONDS = 30.0


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    """As many threads as in prod: with the eight of test, nine hostile callers are simply all there may be."""
    with servers.running("test", WEB_THREADS="0", SERVER_MAX_CONNECTIONS="0") as server:
        yield server


@pytest.mark.parametrize("name", hostile.SLOW)
def test_picture_that_is_slow_to_decode_ends_at_its_deadline(served: Server, name: str) -> None:
    shots = hostile.every_way(hostile.SLOW[name](), TIMEOUT_SECONDS)

    with attack(f"slow {name}", served) as running:
        ends = hostile.shoot_for(served, shots, AT_ONCE, ATTACK_SECONDS)

    running.figures.require()
    late = [end for end in ends if end.seconds > TIMEOUT_SECONDS + 1 or end.status == 0]
    assert late == [], Counter((end.path, end.status) for end in ends)
    assert running.figures.recovery_seconds < 2


def test_many_equal_pictures_that_are_slow_keep_no_places(served: Server) -> None:
    shots = [hostile.Shot("/v1/classify", hostile.many_scans(84), "image/jpeg", 8.0, is_computed=False)] * 60

    with attack("60 equal slow pictures", served) as running:
        ends = hostile.shoot_for(served, shots, 60, ATTACK_SECONDS)

    running.figures.require()
    assert max(end.seconds for end in ends) < 8.0 + 1


@pytest.mark.parametrize("name", hostile.REFUSED)
def test_picture_out_of_proportion_is_refused_at_once(served: Server, name: str) -> None:
    shots = hostile.every_way(hostile.REFUSED[name](), 10.0)

    with attack(f"refused {name}", served) as running:
        ends = hostile.shoot_for(served, shots, AT_ONCE, ATTACK_SECONDS)

    running.figures.require()
    # JSON-RPC has its own shape of failure, with status 200. A crowd may be refused before its bodies are read.
    wrong = [end for end in ends if end.status not in (413, 422, 503) and end.path != "/api"]
    assert wrong == [], ends
    assert {end.status for end in ends} & {413, 422}
    assert max(end.seconds for end in ends) < 10


def test_hostile_picture_in_a_job_fails_once_and_holds_up_no_other(served: Server) -> None:
    hurt = [hostile.many_scans(84), hostile.many_scans(6000), hostile.SLOW["PNG of 49 megapixels, grey+alpha"]()]
    began = time.monotonic()

    with attack("hostile pictures in a job", served) as running:
        first = [served.make_job(image, 1) for image in hurt]
        second = served.make_job(bad_input.good_image(), 2)
        wait_until(lambda: served.ask(f"/v1/jobs/{second}").json["state"] == "succeeded", JOB_SECONDS, "the next job")
        waited = time.monotonic() - began
        threading.Event().wait(max(0.0, 3.0 - waited))

    running.figures.require()
    states = [served.ask(f"/v1/jobs/{each}").json for each in first]
    assert [each["state"] for each in states][1] == "failed", states
    assert all(each["state"] in ("succeeded", "failed") for each in states), states
    error = served.ask(f"/v1/jobs/{first[1]}").json["results"][0]["error"]
    assert (error["code"], error["status"]) == ("image_too_complex", 422)
