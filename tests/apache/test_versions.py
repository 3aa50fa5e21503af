"""Versions are changed while the real service answers: nothing is lost, nothing mixed, nothing kept in memory."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import servers, stores
from tests.stores import CLASSIFIER
from tests.versioned import Versioned, versioned

SWAPS = 20
WARM_SWAPS = 6
CALLERS = 4
# A test that never ends would load the machine for ever.
MAX_REQUESTS_EACH = 4000
# The weights are 4 MB in memory: twenty forgotten copies are 80 MB.
MAX_GROWTH_MEGABYTES = 32.0
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def swapping() -> Iterator[Versioned]:
    """Keeps nothing that no role needs, so that every swap loads; refuses nobody because this machine is busy."""
    settings = {"MODELS_KEEP_PREVIOUS_SECONDS": "0", "WEB_PROCESSES": "2", "REQUEST_MAX_WAIT_SECONDS": "60"}
    with versioned(**settings) as service:
        yield service


@pytest.fixture(scope="module")
def image() -> bytes:
    return (servers.ROOT / "models" / "samples" / "cone.jpg").read_bytes()


def test_twenty_swaps_under_load_lose_and_mix_nothing_and_memory_stays_flat(swapping: Versioned, image: bytes) -> None:
    warm = swap_under_load(swapping, image, WARM_SWAPS)[1]
    found, end = swap_under_load(swapping, image, SWAPS)

    print(f"{len(found)} answers, {warm:.1f} MB after {WARM_SWAPS} swaps, {end:.1f} MB after {SWAPS} more")
    assert set(found) == {"1", "2"}
    assert len(found) >= SWAPS
    assert end - warm < MAX_GROWTH_MEGABYTES


def swap_under_load(service: Versioned, image: bytes, count: int) -> tuple[list[str], float]:
    """The version of every answer given meanwhile, and the engine's own memory in MB when all is quiet again."""
    is_over = threading.Event()
    found: list[str] = []

    def call(_: int) -> None:
        for _ in range(MAX_REQUESTS_EACH):
            if is_over.is_set():
                return
            found.append(service.check(service.classify(image)))

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(call, number) for number in range(CALLERS)]
        try:
            for _, version in zip(range(count), itertools.cycle("21"), strict=False):
                service.change("promote", version)
                at = len(found)
                servers.wait_until(
                    lambda version=version, at=at: version in found[at:] or any(each.done() for each in callers),
                    PATIENCE_SECONDS,
                    f"an answer of version {version}",
                )
        finally:
            is_over.set()
        for caller in callers:
            caller.result()
    for version in "21":
        # Memory goes back to the system when a version is unloaded.
        service.change("promote", version)
        servers.wait_until(lambda: len(service.versions()) == 1, PATIENCE_SECONDS, "one copy")
    return found, own_megabytes(service.server.engine_pid())


def own_megabytes(pid: int) -> float:
    """Memory of a process that belongs to no file (RssAnon, proc(5)): its PSS changes when others map libraries too."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^RssAnon:\s+(\d+) kB", text, re.M)[1]) / 1024  # type: ignore[index]


@pytest.fixture(scope="module")
def service() -> Iterator[Versioned]:
    """Keeps what served before, as by default; every test leaves version 1 active, alone and ready."""
    with versioned() as made:
        yield made


def test_a_version_that_was_added_after_the_start_is_promoted_and_rolled_back(service: Versioned, image: bytes) -> None:
    forward = service.command("promote", CLASSIFIER, "2")
    after = service.check(service.classify(image))
    again = service.command("promote", CLASSIFIER, "2")
    shown = service.server.ask(f"/v1/models/{CLASSIFIER}").json
    back = service.command("rollback", CLASSIFIER)
    twice = service.command("rollback", CLASSIFIER)

    assert (forward.returncode, after) == (0, "2"), forward.stderr
    assert "comparing with its stored answers" in forward.stdout
    assert f"{CLASSIFIER}@2 answers 100 % of the requests now." in forward.stdout
    assert forward.stdout.splitlines()[-1] == f"Back to 1: make model-rollback MODEL={CLASSIFIER}"
    assert again.returncode == 0 and "nothing changed" in again.stdout
    rows = [(row["version"], row["role"], row["state"], row["share"]) for row in shown["versions"]]
    assert rows == [("2", "active", "ready", 100.0), ("1", "previous", "ready", 0.0)]
    assert back.returncode == 0 and f"{CLASSIFIER}@1 is loaded already" in back.stdout
    assert twice.returncode == 0 and "nothing changed" in twice.stdout
    assert service.check(service.classify(image)) == "1"


def test_a_canary_answers_its_share_and_those_who_ask_for_it(service: Versioned, image: bytes) -> None:
    begun = service.command("canary", CLASSIFIER, "3", "--share", "30")
    found = [service.check(service.classify(image)) for _ in range(200)]
    requested = [service.check(service.classify(image, **{"X-Model-Canary": "always"})) for _ in range(5)]
    refused = [service.check(service.classify(image, **{"X-Model-Canary": "never"})) for _ in range(20)]
    wrong = service.classify(image, **{"X-Model-Canary": "perhaps"})
    ended = service.command("canary", CLASSIFIER, "--share", "0")
    after = [service.check(service.classify(image)) for _ in range(20)]

    assert begun.returncode == 0, begun.stderr
    # 60 are expected; with a fair draw fewer than 25 or more than 95 come once in 10 million times.
    assert 25 <= found.count("3") <= 95
    assert (set(requested), set(refused), set(after)) == ({"3"}, {"1"}, {"1"})
    assert (wrong.status, wrong.json["code"]) == (422, "option_invalid")
    assert ended.returncode == 0 and "no canary any more" in ended.stdout


def test_a_version_whose_weights_are_broken_is_refused_and_the_old_one_goes_on(
    service: Versioned, image: bytes
) -> None:
    broken = stores.add_version(service.store, "4")
    weights = bytearray(broken.weights_path.read_bytes())
    weights[len(weights) // 2] ^= 1
    broken.weights_path.write_bytes(weights)

    refused = service.command("promote", CLASSIFIER, "4")

    assert refused.returncode == 1
    assert refused.stderr.startswith("FAIL: ") and "SHA-256" in refused.stderr
    assert service.check(service.classify(image)) == "1"
    assert service.server.is_ready()
    rows = {row["version"]: row for row in service.server.ask("/v1/models").json["models"]}
    assert rows["4"]["state"] == "failed"
    assert (rows["1"]["role"], rows["1"]["state"]) == ("active", "ready")


def test_a_version_that_does_not_give_its_stored_answers_is_refused(service: Versioned, image: bytes) -> None:
    altered = stores.add_version(service.store, "5")
    manifest = altered.directory / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("mean = [0.485", "mean = [0.985"))

    refused = service.command("promote", CLASSIFIER, "5")

    assert refused.returncode == 1
    assert "does not give its stored answers" in refused.stderr
    assert service.check(service.classify(image)) == "1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("promote", CLASSIFIER, "99"), "It has: 1, 2, 3"),
        (("promote", "nobody", "1"), f"There are: {CLASSIFIER}."),
        (("canary", CLASSIFIER, "1", "--share", "5"), "cannot be its own canary"),
        (("canary", CLASSIFIER, "2", "--share", "101"), "at most 100"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    service: Versioned, arguments: tuple[str, ...], words: str
) -> None:
    refused = service.command(*arguments)

    assert refused.returncode == 1
    assert words in refused.stderr


def test_a_version_is_loaded_again_beside_itself_while_it_answers(service: Versioned, image: bytes) -> None:
    done = service.change("reload", "1")

    assert done["after"] == done["before"]
    assert service.check(service.classify(image)) == "1"


def test_a_shadow_is_compared_and_no_caller_sees_it(service: Versioned, image: bytes) -> None:
    begun = service.command("shadow", CLASSIFIER, "2")
    found = {service.check(service.classify(image)) for _ in range(20)}
    servers.wait_until(lambda: _compared(service) >= 1, 30, "a comparison")
    report = service.command("shadow", CLASSIFIER)
    ended = service.command("shadow", CLASSIFIER, "--end")
    row = service.client.status()["shadows"][CLASSIFIER]

    assert begun.returncode == 0, begun.stderr
    assert found == {"1"}
    # The labels of version 2 have other names, so that no answer is the same; the scores are.
    assert (row["version"], row["same"], row["failed"], row["largest_difference"]) == ("2", 0, 0, 0)
    assert report.returncode == 0 and f"{CLASSIFIER}@2 is the shadow." in report.stdout
    assert '"label":"cone-2"' in report.stdout
    assert ended.returncode == 0 and "no shadow any more" in ended.stdout


def _compared(service: Versioned) -> int:
    return int(service.client.status()["shadows"].get(CLASSIFIER, {}).get("compared", 0))
