"""What decides: enough requests, bounds and not points, facts above doubts, JUnit for CI."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from loadtest.checks import Verdict, junit
from loadtest.request_log import CACHE, Outcome
from loadtest.statuses import Status
from loadtest.verdict import judge, so_far
from tests.unit.loadtest_rows import PROFILE, SLO, record, rows


def status_of(verdict: Verdict, name: str) -> Status:
    return next(each.status for each in verdict.checks if each.name == name)


def test_enough_quick_right_answers_pass() -> None:
    verdict = judge(record(rows(400)), PROFILE, SLO)

    assert verdict.status == Status.PASS
    assert verdict.figures["response_ms"]["p99"] == pytest.approx(50)


@pytest.mark.parametrize(("count", "status"), [(298, Status.UNDECIDED), (299, Status.PASS)])
def test_p99_is_claimed_from_299_requests_on(count: int, status: Status) -> None:
    assert judge(record(rows(count)), PROFILE, SLO).status == status


def test_one_late_in_a_hundred_is_undecided_and_five_fail() -> None:
    few, many = rows(400), rows(400)
    few["done"][::100] += 1
    many["done"][::20] += 1

    assert judge(record(few), PROFILE, SLO).status == Status.UNDECIDED
    assert status_of(judge(record(many), PROFILE, SLO), "response p99") == Status.FAIL


def test_a_server_that_stands_still_is_late_from_the_intended_start() -> None:
    """A closed loop would have seen 50 ms; who was meant to come during the stop has waited it out."""
    made = rows(400)
    for stop in range(0, 400, 40):
        made["done"][stop : stop + 4] += 2
        made["sent"][stop : stop + 4] += 2 - 0.05

    verdict = judge(record(made), PROFILE, SLO)

    assert status_of(verdict, "response p99") == Status.FAIL
    assert verdict.figures["service_ms"]["p99"] < 110 < 2000 < verdict.figures["response_ms"]["p99"]


def test_who_got_no_answer_counts_as_late() -> None:
    made = rows(400)
    made["outcome"][::13] = Outcome.REFUSED

    verdict = judge(record(made), PROFILE, SLO)

    assert status_of(verdict, "response p99") == Status.FAIL
    assert status_of(verdict, "failed") == Status.FAIL


def test_dropped_arrivals_fail_and_are_no_lag() -> None:
    made = rows(400)
    made["outcome"][:40] = Outcome.DROPPED

    verdict = judge(record(made), PROFILE, SLO)

    assert status_of(verdict, "dropped") == Status.FAIL
    assert status_of(verdict, "generator lag p99") == Status.PASS


@pytest.mark.parametrize("outcome", [Outcome.WRONG, Outcome.MIXED_UP])
def test_a_single_wrong_answer_fails_also_in_the_warm_up_and_with_a_lost_worker(outcome: Outcome) -> None:
    made = rows(400)
    made["outcome"][0] = outcome
    profile = dataclasses.replace(PROFILE, warm_up_seconds=1.0)

    assert judge(record(made), profile, SLO).status == Status.FAIL
    assert judge(record(made, workers=2), profile, SLO).status == Status.FAIL


def test_a_run_without_requests_is_invalid() -> None:
    assert judge(record(rows(0), planned=5, rows=0), PROFILE, SLO).status == Status.INVALID


def test_a_lost_worker_makes_the_run_invalid() -> None:
    assert judge(record(rows(400), workers=2), PROFILE, SLO).status == Status.INVALID


def test_missing_rows_make_the_run_invalid() -> None:
    assert judge(record(rows(400), planned=401), PROFILE, SLO).status == Status.INVALID


def test_a_late_generator_makes_the_run_invalid_though_answers_were_slow() -> None:
    verdict = judge(record(rows(400, response_ms=900, lag_ms=800)), PROFILE, SLO)

    assert verdict.status == Status.INVALID


def test_a_broken_promise_of_the_services_own_is_not_hidden_by_a_late_generator() -> None:
    """The generator lagged by 20.8 ms against 20, and the service took 900 ms against 500."""
    slow, told, refused = rows(400, response_ms=900, lag_ms=20.8), rows(400, 70, lag_ms=60), rows(400, 60, lag_ms=50)
    told["app_ms"] = 900
    refused["outcome"][::10] = Outcome.REFUSED

    for made, name in ((slow, "service's own p99"), (told, "service's own p99"), (refused, "service's own refusals")):
        verdict = judge(record(made), PROFILE, SLO)
        assert status_of(verdict, "generator lag p99") == Status.INVALID
        assert verdict.status == status_of(verdict, name) == Status.FAIL


def test_connections_that_broke_may_be_the_late_generators_own() -> None:
    made = rows(400, 60, lag_ms=50)
    made["outcome"][::10] = Outcome.BROKEN

    assert judge(record(made), PROFILE, SLO).status == Status.INVALID


@pytest.mark.parametrize(("count", "status"), [(40, Status.FAIL), (4, Status.UNDECIDED)])
def test_a_service_that_does_not_listen_for_a_while_fails_by_that(count: int, status: Status) -> None:
    """One outage is one event, of which no bound over blocks of time can be sure; it is a fact all the same."""
    made = rows(400)
    made["outcome"][100 : 100 + count] = Outcome.BROKEN
    refused = [{"scenario": "page", "status": 0, "code": "ConnectionRefusedError", "count": count}]
    slo = dataclasses.replace(SLO, max_failed_share=0.02)

    verdict = judge(record(made, refusals=refused), PROFILE, slo, host=watched(0, 9000))

    assert verdict.status == status
    assert (status == Status.FAIL) == ("Nobody listened" in verdict.cause)
    assert (status == Status.FAIL) == ("quiet machine" not in verdict.cause)


@pytest.mark.parametrize("code", ["EMFILE", "EADDRNOTAVAIL", "gaierror"])
def test_what_the_sending_machine_had_no_room_for_is_not_the_services_failure(code: str) -> None:
    made = rows(400)
    made["outcome"][::10] = Outcome.BROKEN

    verdict = judge(record(made, refusals=[{"scenario": "page", "status": 0, "code": code, "count": 40}]), PROFILE, SLO)

    assert verdict.status == status_of(verdict, "generator's sockets") == Status.INVALID
    assert code in verdict.cause


# ── Failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def failing(count: int, failed: int) -> Verdict:
    made = rows(count)
    made["outcome"][: failed * 200 : 200] = Outcome.FAILED
    return judge(record(made), PROFILE, dataclasses.replace(SLO, max_failed_share=0.002))


@pytest.mark.parametrize(
    ("count", "failed", "status"),
    # One of 1 000 is within 0.2 %, but it may be 0.47 %; of 4 000 two are at most 0.16 %.
    [(1000, 1, Status.UNDECIDED), (4000, 2, Status.PASS), (400, 0, Status.PASS), (4000, 20, Status.FAIL)],
)
def test_failures_are_judged_by_their_bounds(count: int, failed: int, status: Status) -> None:
    assert status_of(failing(count, failed), "failed") == status


def test_no_failure_in_a_short_run_says_how_little_that_shows() -> None:
    check = next(each for each in failing(400, 0).checks if each.name == "failed")

    assert "0.75%" in check.sureness
    assert "0.002 takes 1497" in check.sureness


# ── Why, and what next ───────────────────────────────────────────────────────────────────────────────────────────────


def watched(steal: int, busy: int, is_shared: bool = True) -> list[dict[str, Any]]:
    """A minute of two cores at a hundred ticks a second each; ``steal`` and ``busy`` of all 12 000."""
    first = {"at": 0.0, "load": 3.0, "cores": 2, "ticks": 0, "busy_ticks": 0, "steal_ticks": 0, "is_shared": is_shared}
    return [first, {**first, "at": 60.0, "ticks": 12_000, "busy_ticks": busy, "steal_ticks": steal}]


def test_a_busy_machine_is_named_with_its_steal_and_what_to_do() -> None:
    verdict = judge(record(rows(400, response_ms=900)), PROFILE, SLO, host=watched(4080, 7800))

    assert "busy with others: 34% steal, other programs on 65%" in verdict.cause
    assert "quiet machine" in verdict.cause
    assert verdict.figures["machine"]["steal_share"] == pytest.approx(0.34)


@pytest.mark.parametrize(("status", "is_named"), [(500, False), (503, True)])
def test_a_busy_machine_explains_refusals_and_no_errors(status: int, is_named: bool) -> None:
    made = rows(1000)
    made["outcome"][::20] = Outcome.REFUSED if status == 503 else Outcome.FAILED
    told = [{"scenario": "page", "status": status, "code": "", "count": 50}]
    slo = dataclasses.replace(SLO, limits_ms={0.5: 100.0})

    verdict = judge(record(made, refusals=told), PROFILE, slo, host=watched(0, 9000))

    assert verdict.status == Status.FAIL
    assert ("busy with others" in verdict.cause) == is_named


def test_a_generator_that_takes_the_servers_cores_is_named() -> None:
    verdict = judge(record(rows(400, 900), cpu_seconds=48.0), PROFILE, SLO, host=watched(0, 5000))

    assert "the generator took 40% of the cores that it shares with the server" in verdict.cause.lower()


def test_refusals_are_named_by_status_code_and_scenario() -> None:
    made = rows(400)
    made["outcome"][::10] = Outcome.REFUSED
    told = [
        {"scenario": "page", "status": 0, "code": "HTTPConnectionClosed", "count": 2},
        {"scenario": "classify_raw", "status": 503, "code": "overloaded", "count": 40},
    ]

    verdict = judge(record(made, refusals=told), PROFILE, SLO)

    assert "40 × 503 overloaded (classify_raw), 2 × HTTPConnectionClosed (page)" in verdict.cause
    assert [row["count"] for row in verdict.figures["refusals"]] == [40, 2]


def test_an_undecided_run_says_how_long_one_decides() -> None:
    verdict = judge(record(rows(100)), PROFILE, SLO)

    assert 299 <= verdict.figures["needs_seconds"] <= 299 * 1.25
    assert f"SECONDS={verdict.figures['needs_seconds']}" in verdict.cause


def test_a_pass_needs_no_cause() -> None:
    assert judge(record(rows(400)), PROFILE, SLO, host=watched(4080, 7800)).cause == ""


def test_a_run_that_was_ended_to_protect_the_target_fails() -> None:
    verdict = judge(record(rows(400), planned=900, stopped_early="95% failed"), PROFILE, SLO)

    assert status_of(verdict, "target protected") == verdict.status == Status.FAIL


def test_the_warm_up_is_cut_by_the_intended_start() -> None:
    made = rows(400)
    made["done"][:50] += 3
    profile = dataclasses.replace(PROFILE, warm_up_seconds=5.0)

    verdict = judge(record(made), profile, SLO)

    assert verdict.figures["counts"]["judged"] == 350
    assert verdict.status == Status.PASS


@pytest.mark.parametrize(("repeated", "status"), [(0, Status.INVALID), (1, Status.PASS)])
@pytest.mark.parametrize("kept", ["hit", "partial"])
def test_what_a_cache_kept_of_an_earlier_run_is_no_measurement(repeated: int, status: Status, kept: str) -> None:
    made = rows(400)
    made["cache"], made["repeated"][:30] = CACHE["miss"], repeated
    made["cache"][:30] = CACHE[kept]

    assert judge(record(made), PROFILE, SLO).status == status


def test_rates_are_over_the_judged_span_also_for_few_requests() -> None:
    profile = dataclasses.replace(PROFILE, warm_up_seconds=20.0)

    figures = judge(record(rows(400)), profile, SLO).figures

    # 400 requests, ten a second: the first 200 are warm-up, and the plan's last 60 seconds are empty.
    assert (figures["counts"]["judged"], figures["seconds"]) == (200, 80.0)
    assert figures["offered_rps"] == pytest.approx(200 / 80)


def test_a_climbing_p99_fails_a_soak() -> None:
    profile = dataclasses.replace(PROFILE, max_drift=0.1)
    steady, climbing = rows(1000), rows(1000, response_ms=50 + np.arange(1000) * 0.05)

    assert judge(record(steady), profile, SLO).status == Status.PASS
    assert status_of(judge(record(climbing), profile, SLO), "p99 drift") == Status.FAIL


def test_the_verdict_is_plain_json_without_infinities() -> None:
    verdict = judge(record(rows(400, outcome=Outcome.BROKEN)), PROFILE, SLO)

    text = json.dumps(verdict.to_dict(), allow_nan=False)

    assert json.loads(text)["verdict"] == "FAIL"


def test_junit_has_a_case_a_check_and_counts_failures_and_errors_apart() -> None:
    made = rows(400)
    made["outcome"][0] = Outcome.WRONG

    suite = ElementTree.fromstring(junit("smoke", judge(record(made, workers=2), PROFILE, SLO)))  # noqa: S314

    assert int(suite.attrib["failures"]) == len(suite.findall(".//failure")) >= 1
    assert int(suite.attrib["errors"]) == len(suite.findall(".//error")) >= 1
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))


# ── What the server used ─────────────────────────────────────────────────────────────────────────────────────────────

SOAK = dataclasses.replace(PROFILE, max_memory_growth=0.1, warm_up_seconds=10)
BEGAN_AT = 1_000_000.0


def samples(first_mb: float, last_mb: float, seconds: int = 40) -> list[dict[str, float]]:
    """One a second, from the beginning of the run; 0.2 cores are busy of two."""
    return [
        {
            "at": BEGAN_AT + second,
            "resident_bytes": 1e6 * (first_mb + (last_mb - first_mb) * second / seconds),
            "cpu_seconds": 7.0 + 0.2 * second,
            "cores": 2,
        }
        for second in range(seconds)
    ]


def soaked(told: list[dict[str, float]]) -> Verdict:
    return judge(record(rows(400), began_at=BEGAN_AT), SOAK, SLO, told)


@pytest.mark.parametrize(
    ("first_mb", "last_mb", "status"),
    [(500, 500, Status.PASS), (500, 520, Status.PASS), (500, 400, Status.PASS), (500, 600, Status.FAIL)],
)
def test_memory_may_grow_by_no_more_than_the_profile_allows(first_mb: int, last_mb: int, status: Status) -> None:
    verdict = soaked(samples(first_mb, last_mb))

    assert status_of(verdict, "memory growth") == status
    assert verdict.status == status


def test_memory_that_fills_during_the_warm_up_is_no_growth() -> None:
    told = samples(500, 500)
    for each in told[:10]:
        each["resident_bytes"] /= 10

    assert soaked(told).status == Status.PASS


def test_a_moments_peak_is_no_growth() -> None:
    told = samples(500, 500)
    told[-1]["resident_bytes"] *= 3

    assert soaked(told).status == Status.PASS


def test_a_server_that_does_not_tell_its_memory_is_not_cleared_of_growth() -> None:
    assert soaked([]).status == Status.INVALID
    assert soaked(samples(500, 500)[:12]).status == Status.INVALID


def test_other_profiles_do_not_ask_for_memory() -> None:
    assert judge(record(rows(400)), PROFILE, SLO).status == Status.PASS


def test_what_a_request_costs_the_server_is_counted_over_the_same_span() -> None:
    server = soaked(samples(500, 500)).figures["server"]

    # Ten right answers a second, 0.2 cores.
    assert server["cpu_ms_per_request"] == pytest.approx(20, rel=0.05)
    assert server["busy_cores"] == pytest.approx(0.2)
    assert (server["cores"], server["resident_mb"]) == (2, 500)


def test_a_server_that_does_not_tell_has_no_cost() -> None:
    assert set(soaked([]).figures["server"].values()) == {None}


# ── While it runs ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_verdict_so_far_knows_what_is_decided_and_what_is_not() -> None:
    assert so_far(record(rows(0)), PROFILE, SLO) is None
    assert so_far(record(rows(20)), PROFILE, SLO) == Status.UNDECIDED
    assert so_far(record(rows(400)), PROFILE, SLO) == Status.PASS
    assert so_far(record(rows(400, response_ms=900.0)), PROFILE, SLO) == Status.FAIL
    assert so_far(record(rows(20, outcome=Outcome.WRONG)), PROFILE, SLO) == Status.FAIL


def test_the_share_of_kept_answers_is_of_those_who_were_told() -> None:
    made = rows(400)
    made["repeated"][:100] = 1
    made["cache"][:90], made["cache"][90:300] = CACHE["hit"], CACHE["miss"]

    assert judge(record(made), PROFILE, SLO).figures["cache"] == {"repeated_share": 0.25, "hit_share": 0.3}
    assert judge(record(rows(400)), PROFILE, SLO).figures["cache"]["hit_share"] is None
