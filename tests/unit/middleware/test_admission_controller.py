"""Places, the engine's work and its cost, fair shares; who is refused, why, and who never is."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from app.config import ROOT
from app.web.middleware import places
from app.web.middleware.admission_controller import (
    FRESH_SECONDS,
    MOST_PLACES,
    PLACES_SECONDS,
    PLACES_SHARE,
    THERE_SECONDS,
    AdmissionController,
    Refusal,
    Ticket,
)
from app.web.middleware.costs import KEEP_SECONDS, Costs
from app.web.middleware.heavy_callers import VAIN_OF_ALL, VAIN_OF_ONE, Crowds
from app.web.middleware.places import ROW_BYTES, Places
from tests.fakes import PATIENCE_SECONDS, FakeClock, eventually

KIND = "detector@1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def controller(clock: FakeClock, slots: int = 8, cost: float = 0.0, **more: Any) -> AdmissionController:
    """``cost``: seconds that each image is known to keep the engine's one worker."""
    made = AdmissionController(slots, max_wait_seconds=more.pop("max_wait_seconds", 1.0), clock=clock, **more)
    if cost:
        made.costs.learn(KIND, cost)
    return made


def arrive(controller: AdmissionController, caller: str = "a") -> Ticket:
    """A request that may come in."""
    ticket = controller.arrive(caller)
    assert isinstance(ticket, Ticket)
    return ticket


def begin(controller: AdmissionController, ticket: Ticket, images: int = 1, kind: str = KIND) -> Refusal | None:
    """Asks for the engine with all images at once."""
    found = controller.begin(ticket, kind, images)
    return found if isinstance(found, Refusal) else controller.take_turn(ticket, kind, images, found)


def admit(controller: AdmissionController, caller: str = "a", images: int = 1) -> Ticket:
    """A request in work."""
    ticket = arrive(controller, caller)
    assert begin(controller, ticket, images) is None
    return ticket


def end(
    controller: AdmissionController,
    ticket: Ticket,
    images: int = 1,
    seconds_an_image: float | None = 0.0,
    kind: str = KIND,
) -> None:
    """The engine has answered."""
    controller.end_turn(ticket, kind, images, seconds_an_image)
    controller.end_work(ticket, kind, 0)


def fill(controller: AdmissionController, caller: str = "a") -> int:
    """How many requests of one image come into work."""
    count = 0
    while isinstance(ticket := controller.arrive(caller), Ticket) and begin(controller, ticket) is None:
        count += 1
    return count


# ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lone_caller_may_have_all_places(clock: FakeClock) -> None:
    assert fill(controller(clock, slots=8)) == 8


@pytest.mark.parametrize("passed", [0.0, THERE_SECONDS / 2])
def test_reserve_is_kept_while_another_caller_is_there(clock: FakeClock, passed: float) -> None:
    shared = controller(clock, slots=8)
    other = admit(shared, "b")
    end(shared, other, 1, None)
    shared.leave(other, is_answered=True)
    clock.now += passed

    assert fill(shared, "a") == 6
    assert fill(shared, "b") == 2


def test_of_few_places_one_is_kept_for_each_other_caller(clock: FakeClock) -> None:
    shared = controller(clock, slots=8)
    for other in "bcde":
        shared.leave(arrive(shared, other), is_answered=False)

    assert fill(shared, "a") == 4
    assert [begin(shared, arrive(shared, other)) for other in "bcde"] == [None] * 4


def test_reserve_is_given_up_when_the_other_has_gone(clock: FakeClock) -> None:
    shared = controller(clock, slots=8)
    other = admit(shared, "b")
    end(shared, other, 1, None)
    shared.leave(other, is_answered=True)
    clock.now += THERE_SECONDS

    assert fill(shared, "a") == 8


def test_idle_engine_refuses_nobody_for_places_that_quick_requests_hold(clock: FakeClock) -> None:
    """They are gone in a moment, and whoever comes beyond the slots waits no longer."""
    idle = controller(clock, slots=8, has_cache=True)
    idle.arrive("b")

    assert all(isinstance(idle.arrive("a"), Ticket) for _ in range(64))


def test_places_that_slow_bodies_hold_are_taken(clock: FakeClock) -> None:
    held = controller(clock, slots=8)
    for _ in range(8):
        held.arrive("slow")
    clock.now += 2 * FRESH_SECONDS

    assert held.arrive("a") == Refusal("slots", 1)


def test_place_that_was_left_is_free_again(clock: FakeClock) -> None:
    full = controller(clock, slots=4)
    visits = [admit(full) for _ in range(4)]
    assert isinstance(full.arrive("a"), Refusal)
    end(full, visits[0])
    full.leave(visits[0], is_answered=True)

    assert isinstance(full.arrive("a"), Ticket)


# ── the engine's work ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_work_that_would_wait_too_long_is_refused_with_the_time_it_would_take(clock: FakeClock) -> None:
    slow = controller(clock, slots=100, cost=1.0, max_wait_seconds=4.0)

    assert fill(slow) == 4
    assert slow.arrive("a") == Refusal("slow", 5.0)


def test_cost_is_by_images_and_kind(clock: FakeClock) -> None:
    mixed = controller(clock, slots=100, cost=0.01)
    mixed.costs.learn("explained", 0.5)
    ticket = arrive(mixed)
    admit(mixed, images=50)

    assert begin(mixed, ticket, 51) == Refusal("slow", pytest.approx(1.01))
    assert begin(mixed, ticket, 2, "explained") is not None
    assert begin(mixed, ticket, 50) is None


def test_several_workers_share_the_work(clock: FakeClock) -> None:
    assert fill(controller(clock, slots=100, cost=0.1, speed=4.0)) == 40


def test_slow_model_is_kept_busy_all_the_same(clock: FakeClock) -> None:
    assert fill(controller(clock, cost=60.0)) == 2


def test_deadline_that_cannot_be_met_is_refused_at_once(clock: FakeClock) -> None:
    busy = controller(clock, cost=1.0, max_wait_seconds=10.0)
    for _ in range(2):
        admit(busy)

    assert isinstance(busy.arrive("a", timeout_seconds=2.0), Refusal)
    ticket = busy.arrive("a", timeout_seconds=5.0)
    assert isinstance(ticket, Ticket)
    assert isinstance(busy.begin(ticket, KIND, 1, 2.0), Refusal)


def test_bodies_on_their_way_keep_nobody_waiting_for_long(clock: FakeClock) -> None:
    open_gate = controller(clock, slots=100, cost=0.3)
    for _ in range(50):
        clock.now += 2 * FRESH_SECONDS
        assert isinstance(open_gate.arrive("slow"), Ticket)
    clock.now += 2 * FRESH_SECONDS

    admit(open_gate, "quick")


def test_of_many_that_come_at_once_only_those_are_let_in_that_will_be_answered_in_time(clock: FakeClock) -> None:
    """Before any of them is in work: to read their bodies and refuse them then would cost everybody's time."""
    crowded = controller(clock, slots=100, cost=0.1)

    visits = [ticket for _ in range(50) if isinstance(ticket := crowded.arrive("a"), Ticket)]

    assert len(visits) == 10
    assert [begin(crowded, ticket) for ticket in visits] == [None] * 10


def test_who_has_come_and_gone_keeps_nobody_waiting(clock: FakeClock) -> None:
    crowded = controller(clock, slots=100, cost=0.4)
    visits = [crowded.arrive("a") for _ in range(3)]
    assert [isinstance(ticket, Ticket) for ticket in visits] == [True, True, False]
    assert isinstance(visits[0], Ticket)
    crowded.leave(visits[0], is_answered=False)

    assert isinstance(crowded.arrive("a"), Ticket)


def test_caller_with_less_work_than_the_others_may_wait_a_little_longer(clock: FakeClock) -> None:
    slow = controller(clock, slots=100, cost=1.0, max_wait_seconds=4.0)
    admit(slow, "a", images=4)

    assert fill(slow, "b") == 1
    assert fill(slow, "a") == 0


# ── room with the engine ──────────────────────────────────────────────────────────────────────────────────────────────


def in_thread(
    controller: AdmissionController, ticket: Ticket, images: int, order: list[str], seconds: float = math.inf
) -> threading.Thread:
    """Asks for the engine in a thread of its own; returns when it waits."""
    number = controller.begin(ticket, KIND, images)
    assert isinstance(number, int)

    def wait() -> None:
        found = controller.take_turn(ticket, KIND, images, number, seconds)
        if found is not None:
            controller.end_work(ticket, KIND, images)
        order.append(ticket.caller if found is None else found.reason)

    waiting = len(controller.turns.line)
    thread = threading.Thread(target=wait)
    thread.start()
    while len(controller.turns.line) == waiting:
        assert thread.is_alive()
    return thread


def test_small_request_does_not_stand_behind_all_of_a_batch_caller(clock: FakeClock) -> None:
    narrow = controller(clock, slots=100, most_images=32)
    first, order = admit(narrow, "batch", 32), list[str]()
    visits = [arrive(narrow, caller) for caller in ("batch", "batch", "small")]
    threads = [in_thread(narrow, ticket, images, order) for ticket, images in zip(visits, (32, 32, 1), strict=True)]
    end(narrow, first, 32)
    threads[2].join(PATIENCE_SECONDS)
    assert order == ["small"]
    for images, number in ((1, 2), (32, 0)):
        end(narrow, visits[number], images)
        threads[1 if number == 0 else 0].join(PATIENCE_SECONDS)

    assert order == ["small", "batch", "batch"]


def test_small_request_comes_between_the_parts_of_a_large_one(clock: FakeClock) -> None:
    narrow, order = controller(clock, slots=100, most_images=4, images_a_turn=4), list[str]()
    large = arrive(narrow, "large")
    number = narrow.begin(large, KIND, 32)
    assert isinstance(number, int)
    assert narrow.take_turn(large, KIND, 4, number) is None
    small = in_thread(narrow, arrive(narrow, "small"), 1, order)
    narrow.end_turn(large, KIND, 4, 0.0)
    small.join(PATIENCE_SECONDS)

    assert order == ["small"]
    assert narrow.take_turn(large, KIND, 4, number, 0.01) == Refusal("late", 1)


def test_older_one_of_a_callers_requests_goes_on_before_the_next_begins(clock: FakeClock) -> None:
    narrow, order = controller(clock, slots=100, most_images=4), list[str]()
    first = arrive(narrow, "other")
    begin(narrow, first, 4)
    older, newer = (arrive(narrow, "batch") for _ in range(2))
    numbers = [narrow.begin(ticket, KIND, 8) for ticket in (older, newer)]

    def wait(ticket: Ticket, number: int | Refusal, name: str) -> threading.Thread:
        def take() -> None:
            assert isinstance(number, int)
            assert narrow.take_turn(ticket, KIND, 4, number) is None
            order.append(name)

        waiting, thread = len(narrow.turns.line), threading.Thread(target=take)
        thread.start()
        eventually(lambda: len(narrow.turns.line) > waiting)
        return thread

    threads = [wait(newer, numbers[1], "newer"), wait(older, numbers[0], "older")]
    end(narrow, first, 4)
    threads[1].join(PATIENCE_SECONDS)
    narrow.end_turn(older, KIND, 4, 0.0)
    threads[0].join(PATIENCE_SECONDS)

    assert order == ["older", "newer"]


def test_wait_of_a_small_request_counts_others_only_as_far_as_they_come_first(clock: FakeClock) -> None:
    """A batch caller's thousand images are no reason to refuse another's one."""
    busy = controller(clock, slots=100, cost=0.01, max_wait_seconds=1.0, most_images=8, images_a_turn=4)
    batches = [busy.begin(arrive(busy, "batch"), KIND, 32) for _ in range(3)]
    assert all(isinstance(each, int) for each in batches)

    assert isinstance(busy.begin(arrive(busy, "batch"), KIND, 32), Refusal)
    assert isinstance(busy.begin(arrive(busy, "small"), KIND, 1), int)


def test_many_small_requests_do_not_keep_a_large_one_out_for_ever(clock: FakeClock) -> None:
    narrow = controller(clock, slots=100, most_images=4)
    first, order = admit(narrow, "small", 1), list[str]()
    large = arrive(narrow, "large")
    threads = [in_thread(narrow, large, 4, order)]
    running = [first]
    for _ in range(8):
        running.append(arrive(narrow, "small"))
        threads.append(in_thread(narrow, running[-1], 1, order))
    for ticket in running[:3]:
        end(narrow, ticket)
        eventually(lambda: len(order) >= 2)
    eventually(lambda: len(order) == 3)
    end(narrow, large, 4)
    for count, ticket in enumerate(running[3:], start=4):
        eventually(lambda count=count: len(order) >= count)  # type: ignore[misc]
        end(narrow, ticket)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)

    assert order.index("large") == 2


def test_who_waits_for_room_longer_than_it_may_is_late_and_leaves_nothing_behind(clock: FakeClock) -> None:
    narrow = controller(clock, most_images=1)
    first, order = admit(narrow), list[str]()
    in_thread(narrow, arrive(narrow), 1, order, 0.05).join(PATIENCE_SECONDS)
    end(narrow, first)

    assert order == ["late"]
    assert (narrow.images, narrow.turns.running, narrow.turns.line, narrow.turns._to_come) == (0, 0, [], {})


def test_what_is_too_large_for_any_room_comes_when_nothing_else_does(clock: FakeClock) -> None:
    admit(controller(clock, most_images=8), images=32)


def test_no_count_is_lost_between_threads() -> None:
    shared = AdmissionController(10_000, max_wait_seconds=1e9, most_images=3)

    def ticket() -> None:
        name = threading.current_thread().name
        for number in range(300):
            ticket = shared.arrive(name)
            assert isinstance(ticket, Ticket)
            assert begin(shared, ticket, 1 + number % 5) is None
            end(shared, ticket, 1 + number % 5)
            shared.leave(ticket, is_answered=True)

    threads = [threading.Thread(target=ticket) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (shared.in_hand, shared.images, shared.turns.running) == (0, 0, 0)
    assert not any((shared._slots_of, shared._images_of, shared._works_of, shared._fresh))
    assert not any((shared.turns._ends, shared.turns._to_come, shared.turns._running_kinds))


# ── kept answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def overloaded(clock: FakeClock) -> AdmissionController:
    """A batch caller has given the engine all that can be done in time."""
    busy = controller(clock, slots=100, cost=0.01, has_cache=True)
    admit(busy, "a", images=150)
    return busy


def test_whose_answer_may_be_kept_is_let_in_though_the_engine_is_busy(clock: FakeClock) -> None:
    busy = overloaded(clock)

    for caller in ("a", "b"):
        ticket = busy.arrive(caller)
        assert isinstance(ticket, Ticket)
        busy.leave(ticket, is_answered=True)


def test_who_wants_it_computed_anew_is_refused_before_its_body_is_read(clock: FakeClock) -> None:
    assert isinstance(overloaded(clock).arrive("a", is_computed=True), Refusal)


def read_in_vain(busy: AdmissionController, caller: str, count: int) -> None:
    for _ in range(count):
        ticket = busy.arrive(caller)
        assert isinstance(ticket, Ticket)
        assert isinstance(busy.begin(ticket, KIND, 100), Refusal)
        assert ticket.is_refused
        busy.leave(ticket, is_answered=False)


def test_crowd_is_refused_before_its_bodies_are_read(clock: FakeClock) -> None:
    busy = overloaded(clock)
    read_in_vain(busy, "a", int(VAIN_OF_ONE))

    assert isinstance(busy.arrive("a"), Refusal)
    assert isinstance(busy.arrive("b"), Ticket)


def test_of_a_crowd_those_are_let_in_whose_answer_may_be_kept(clock: FakeClock) -> None:
    busy = overloaded(clock)
    read_in_vain(busy, "a", int(VAIN_OF_ONE))

    assert isinstance(busy.arrive("a"), Refusal)
    assert isinstance(busy.arrive("a", may_be_kept=True), Ticket)


def test_kept_answer_needs_none_of_the_places(clock: FakeClock) -> None:
    full = controller(clock, slots=4, has_cache=True)
    for _ in range(4):
        admit(full)
    clock.now += 2 * FRESH_SECONDS

    assert isinstance(full.arrive("a"), Refusal)
    ticket = full.arrive("a", may_be_kept=True)
    assert isinstance(ticket, Ticket)
    assert begin(full, ticket) == Refusal("slots", 1)


def test_crowd_of_many_addresses_is_one_too(clock: FakeClock) -> None:
    busy = overloaded(clock)
    for number in range(int(VAIN_OF_ALL)):
        read_in_vain(busy, f"10.0.0.{number}", 1)

    assert isinstance(busy.arrive("new"), Refusal)


def test_crowd_is_forgotten_within_seconds(clock: FakeClock) -> None:
    busy = overloaded(clock)
    read_in_vain(busy, "a", int(VAIN_OF_ONE))
    clock.now += 1.0

    assert isinstance(busy.arrive("a"), Ticket)


def test_who_gets_kept_answers_is_no_crowd(clock: FakeClock) -> None:
    busy = overloaded(clock)
    read_in_vain(busy, "a", 5)
    for _ in range(50):
        ticket = busy.arrive("a")
        assert isinstance(ticket, Ticket)
        busy.leave(ticket, is_answered=True)
    read_in_vain(busy, "a", 40)

    assert isinstance(busy.arrive("a"), Ticket)


def test_table_of_callers_does_not_grow_with_addresses(clock: FakeClock) -> None:
    crowds = Crowds(clock)
    for number in range(5000):
        crowds.note_vain(str(number))

    assert len(crowds._callers) <= 1024


# ── places ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def shown(busy: AdmissionController) -> tuple[int, int]:
    """What Apache is told: for anybody, and for who has fewer places than others."""
    row = memoryview(bytearray(ROW_BYTES))
    busy._show_places(Places(row))
    everyone, modest = row.cast("I")
    return everyone, modest


def test_without_work_all_slots_are_places(clock: FakeClock) -> None:
    assert shown(controller(clock)) == (8, 8)


def test_places_are_those_who_are_here_and_as_many_as_are_done_in_time(clock: FakeClock) -> None:
    # In a second ten images are computed; two of ten are for mistakes, and ten are in work.
    slow = controller(clock, slots=100, cost=0.1, max_wait_seconds=2.0)
    for _ in range(10):
        admit(slow)
    clock.now += 2 * FRESH_SECONDS

    everyone, modest = shown(slow)

    assert everyone == 10 + int((2.0 * PLACES_SHARE - 10 * 0.1) / 0.1)
    # All ten are with the engine, before whoever comes.
    assert modest == 10 + int((2.0 * 1.25 * PLACES_SHARE - 10 * 0.1) / 0.1)


def test_who_has_less_than_others_does_not_stand_behind_all_of_their_work(clock: FakeClock) -> None:
    busy = controller(clock, slots=100, cost=0.1, most_images=4, images_a_turn=4)
    ticket = arrive(busy, "a")
    assert not isinstance(busy.begin(ticket, KIND, 50), Refusal)

    assert shown(busy) == (1, 1 + int(1.25 * PLACES_SHARE / 0.1))


def test_nor_behind_all_requests_of_which_nothing_is_known_yet(clock: FakeClock) -> None:
    busy = controller(clock, slots=100, cost=0.1)
    for _ in range(10):
        arrive(busy, "a")

    assert shown(busy) == (10, 10 + int(1.25 * PLACES_SHARE / 0.1) - 1)


def test_some_slots_are_no_places_while_others_are_there(clock: FakeClock) -> None:
    busy = controller(clock, slots=8, least_images=1)
    admit(busy, "a")
    alone = shown(busy)
    admit(busy, "b")

    assert (alone, shown(busy)) == ((8, 8), (6, 8))


def test_with_few_threads_others_may_wait_for_one(clock: FakeClock) -> None:
    few = controller(clock, slots=2, cost=0.1, waits_for_threads=True)
    tickets = [arrive(few) for _ in range(2)]
    waiting = shown(few)
    begin(few, tickets[0], images=20)

    assert waiting == pytest.approx((MOST_PLACES, MOST_PLACES), abs=2)
    assert shown(few) == (2, 2)


def test_there_is_always_a_place_for_one_who_finds_out_that_there_is_room(clock: FakeClock) -> None:
    hopeless = controller(clock, slots=8, cost=100.0)
    admit(hopeless)
    admit(hopeless)
    clock.now += 2 * FRESH_SECONDS

    assert shown(hopeless) == (2, 2)
    assert shown(controller(clock, slots=8, cost=100.0, least_images=1))[0] >= 1


def test_places_become_fewer_when_work_takes_longer_than_expected(clock: FakeClock) -> None:
    busy = controller(clock, slots=100, cost=0.01)
    admit(busy, images=20)
    before = shown(busy)
    for _ in range(40):
        clock.now += 2 * FRESH_SECONDS
        ticket = admit(busy)
        clock.now += 0.42
        end(busy, ticket, 1, 0.01)
        busy.end_work(ticket, KIND, 0)
        busy.leave(ticket, is_answered=True)
    during = shown(busy)
    clock.now += 60.0

    assert before[0] == pytest.approx(1 + (PLACES_SHARE - 20 * 0.01) / 0.01, abs=2)
    assert during[0] < 0.8 * before[0]
    assert shown(busy) == pytest.approx(before, abs=2)


def test_apache_is_told_again_after_a_moment_and_at_once_by_who_leaves_last(clock: FakeClock) -> None:
    row = memoryview(bytearray(ROW_BYTES))
    busy = controller(clock, slots=8, cost=0.1, max_wait_seconds=2.0, least_images=1, places=Places(row))
    tickets = [arrive(busy) for _ in range(3)]
    # Twenty images are two seconds of work, as long as anybody may wait.
    begin(busy, tickets[0], 20)
    said = []
    for ticket, seconds in ((tickets[1], PLACES_SECONDS), (tickets[2], 0.0)):
        said.append(row.cast("I")[0])
        clock.now += seconds
        busy.leave(ticket, is_answered=True)
    end(busy, tickets[0], 20, 0.1)
    said.append(row.cast("I")[0])
    busy.leave(tickets[0], is_answered=True)

    assert [*said, row.cast("I")[0]] == [8, 2, 2, 8]


def test_a_row_is_one_process_s_and_free_again_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "run" / "places"
    places.make(path, 2)
    code = (
        "import sys; from pathlib import Path; from app.web.middleware import places;"
        "row = places.claim(Path(sys.argv[1])); row.show(3, 4); print('shown', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdin
    with process.stdout, process.stdin:
        assert process.stdout.readline() == b"shown\n"
        own = places.claim(path)
        assert own is not None
        assert places.claim(path) is None
        own.show(5, 6)
        process.kill()
        process.wait()
    successor = places.claim(path)
    assert successor is not None

    # What the dead one said holds until its successor speaks.
    assert memoryview(path.read_bytes()).cast("I").tolist() == [3, 4, 5, 6]
    successor.show(1, 2)
    assert memoryview(path.read_bytes()).cast("I").tolist() == [1, 2, 5, 6]


# ── costs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("odd", [0.4, 20.0])
def test_one_slow_answer_is_not_what_the_next_will_cost(clock: FakeClock, odd: float) -> None:
    costs = Costs(clock)
    for seconds in (odd, 0.01, 0.012, odd):
        costs.learn(KIND, seconds)

    assert costs.of(KIND) == 0.012


def test_model_that_became_slower_is_believed(clock: FakeClock) -> None:
    costs = Costs(clock)
    for seconds in [0.01] * 20 + [0.05] * 8:
        costs.learn(KIND, seconds)

    assert costs.of(KIND) == 0.05


def test_what_was_dear_long_ago_counts_no_more(clock: FakeClock) -> None:
    costs = Costs(clock)
    costs.learn(KIND, 0.01)
    for _ in range(20):
        costs.learn(KIND, 5.0)
    assert costs.of(KIND) == 5.0
    clock.now += KEEP_SECONDS + 1

    assert costs.of(KIND) == 0.01


def test_nothing_is_known_of_another_kind(clock: FakeClock) -> None:
    costs = Costs(clock)
    costs.learn(KIND, 5.0)

    assert (costs.of("other"), costs.least()) == (0.0, 5.0)
