"""Why a run ended as it did, and what to do next: the second line of a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadtest.checks import Check
from loadtest.statuses import Status

LAG = "generator lag p99"
PROTECTED, AWAY = "target protected", "service listens"
# No other program on the machine explains these.
NOT_BY_OTHERS = frozenset(("wrong answers", "mixed-up answers", PROTECTED, AWAY))
# Of failures, these come of a lack of time: no answer, or a service that refuses or gives up.
BY_TIME = (0, 408, 429, 503, 504)
# From these shares of the cores on, others than the server are worth a word.
STEAL_FROM = 0.05
OTHERS_FROM = 0.25
GENERATOR_FROM = 0.25
REFUSALS_NAMED = 3


def machine(samples: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> dict[str, Any]:
    """Who used this machine during the run, as shares of its cores; empty where it was not watched."""
    if len(samples) < 2 or samples[-1]["ticks"] <= samples[0]["ticks"]:
        return {}
    first, last = samples[0], samples[-1]
    ticks, cores = last["ticks"] - first["ticks"], last["cores"] or 1
    busy = (last["busy_ticks"] - first["busy_ticks"]) / ticks
    generator = (found["generator"]["cpu_seconds"] or 0.0) / (last["at"] - first["at"]) / cores
    server = (found["server"]["busy_cores"] or 0.0) / cores if last["is_shared"] else 0.0
    return {
        "is_shared": bool(last["is_shared"]),
        "cores": cores,
        "load": round(sum(sample["load"] for sample in samples) / len(samples), 2),
        "busy_share": round(busy, 4),
        "steal_share": round((last["steal_ticks"] - first["steal_ticks"]) / ticks, 4),
        "generator_share": round(min(1.0, generator), 4),
        "others_share": round(max(0.0, busy - generator - server), 4),
    }


def of_verdict(status: Status, checks: Sequence[Check], found: Mapping[str, Any]) -> str:
    """One line; empty for a PASS."""
    if status == Status.PASS:
        return ""
    wrong = {check.name for check in checks if check.status == status}
    is_by_time = any(row["status"] in BY_TIME for row in found["refusals"])
    may_be_others = wrong - NOT_BY_OTHERS - (set() if is_by_time else {"failed"})
    busy = _busy(found["machine"], wrong) if may_be_others else ()
    parts = [*_answers(wrong), *busy, *_refusals(found), *_slow(wrong, found)]
    if status == Status.UNDECIDED:
        parts += _undecided(found)
    if not parts:
        parts = [f"see {', '.join(sorted(wrong))}"]
    return ". ".join(part[:1].upper() + part[1:] for part in parts) + "."


def _answers(wrong: set[str]) -> Iterator[str]:
    if "wrong answers" in wrong:
        yield (
            "answers differ from those at rest, or a check says no: see the examples, and whether a canary or another"
            " version answers"
        )
    if "mixed-up answers" in wrong:
        yield "callers got each other's answers: look for state that requests share"
    if AWAY in wrong:
        yield "nobody listened there for a while: it crashed or was restarted, see its log"


def _busy(used: Mapping[str, Any], wrong: set[str]) -> Iterator[str]:
    """Whether others than the server may have made it slow."""
    if not used:
        return
    others = disturbed_by(used)
    if others:
        yield f"the machine was {others}"
        yield "next: repeat on a quiet machine"
    if used["is_shared"] and used["generator_share"] >= GENERATOR_FROM:
        yield f"the generator took {used['generator_share']:.0%} of the cores that it shares with the server"
        yield "next: send from another machine"
    elif LAG in wrong and not others:
        yield "this machine could not send on time: add workers (--processes 2), or send from another machine"


def disturbed_by(used: Mapping[str, Any]) -> str:
    """Who else took enough of this machine to make a server slow, in words; empty where nobody did."""
    others = []
    if used and used["steal_share"] >= STEAL_FROM:
        others.append(f"{used['steal_share']:.0%} steal")
    if used and used["is_shared"] and used["others_share"] >= OTHERS_FROM:
        others.append(f"other programs on {used['others_share']:.0%} of its {used['cores']} cores")
    return f"busy with others: {', '.join(others)}, load {used['load']:.1f}" if others else ""


def _refusals(found: Mapping[str, Any]) -> Iterator[str]:
    refusals = found["refusals"]
    if refusals:
        named = [f"{row['count']} × {refusal(row)} ({row['scenario']})" for row in refusals[:REFUSALS_NAMED]]
        more = f" and {len(refusals) - REFUSALS_NAMED} kinds more" if len(refusals) > REFUSALS_NAMED else ""
        yield f"not answered: {', '.join(named)}{more}; docs/errors.md says what each code means"


def refusal(row: Mapping[str, Any]) -> str:
    """Status and problem code of one kind of failure, or the connection's."""
    return " ".join(str(part) for part in (row["status"] or "", row["code"]) if part) or "no answer"


def _slow(wrong: set[str], found: Mapping[str, Any]) -> Iterator[str]:
    """Where the time goes, by the server's own account."""
    if not any(name.startswith(("response", "service's own p")) for name in wrong):
        return
    p95 = {name: part["p95"] for name, part in found["server_ms"].items() if name in ("decode", "queue", "predict")}
    told = {name: value for name, value in p95.items() if value}
    if told:
        slowest = max(told, key=lambda name: told[name])
        yield f"at p95 the server's largest part is {slowest}, {told[slowest]:.0f} ms"
    offered, right = found["offered_rps"], found["right_rps"]
    if offered and right is not None and right < 0.95 * offered:
        yield f"offered were {offered:.1f} a second, answered rightly {right:.1f}: make loadtest-search finds the limit"


def _undecided(found: Mapping[str, Any]) -> Iterator[str]:
    needed = found["needs_seconds"]
    if needed:
        yield f"next: run about as long as decides it, SECONDS={needed}"
    else:
        yield "the share seen is the share allowed: no longer run decides that; offer a little less"
