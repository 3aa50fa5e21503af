"""``make bench``: every contender in turn, round after round; then tables, ratios and a chart in ``build/bench``.

make bench                                           everything, five rounds, more than an hour
make bench OPTIONS=--quick                           ours and gunicorn, two rounds, about four minutes
make bench OPTIONS="--only ours litserve --rounds 3" some of them
make bench OPTIONS="--parts overload --callers 32"   one part of it
make bench OPTIONS="--only ours-auto --parts cache"  what a kept answer costs beside a computed one
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import chart, contenders, environment, model, own_priority, pictures, raw, report
from bench.contenders import Contender
from bench.statistics import Sample
from bench.visits import Pictures, Plan, Visit, VisitFailedError, wait_for_quiet

CALLERS = (1, 8, 32, 64)
PARTS = ("throughput", "overload", "hammer", "routes", "cache", "raw")
RAW = "raw"
RAW_TITLE = "raw limit, without HTTP"
# Above this something else uses a core, and figures would say more about that than about the contenders.
QUIET_LOAD = 0.7
OPEN_FILES = 16384


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit status: 0 measured, 1 a contender failed, 2 wrong usage."""
    arguments = _parse(argv)
    # Whoever ends us ends what we started: the contender of the moment is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    allow_open_files()
    own_priority.take()
    environment.ensure()
    manifest = model.ensure()
    known = _known(arguments.parts)
    chosen = [each for each in known if not arguments.only or each.name in arguments.only]
    titles = {each.name: each.title for each in known}
    titles |= {_raw_name(each): f"{each.title}: {RAW_TITLE}" for each in contenders.ours()}
    sent = Pictures(pictures.held_out(), model.reference())
    plan = Plan(tuple(arguments.callers), arguments.seconds, frozenset(arguments.parts), arguments.attempts)
    head = _head(arguments, manifest.digest)
    print("\n".join(head), flush=True)
    samples, failures = _rounds(chosen, plan, sent, arguments)
    _write(samples, titles, head, arguments, failures)
    return 1 if failures else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these contenders; `raw` is the raw limit of ours")
    parser.add_argument("--rounds", type=int, help="visits to each contender (default: 5)")
    parser.add_argument("--seconds", type=float, help="of each measurement (default: 5)")
    parser.add_argument("--callers", type=int, nargs="+", help="at once in the closed loop (default: 1 8 32 64)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="what to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="ours-auto, gunicorn and the raw limit, 8 and 32 callers")
    parser.add_argument("--attempts", type=int, default=3, help="while others disturb a measurement (default: 3)")
    parser.add_argument("--patience", type=float, default=30, help="seconds to wait for a quiet machine (default: 30)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON at the end")
    parser.add_argument("--list", action="store_true", help="name the contenders and end")
    arguments = parser.parse_args(argv)
    if arguments.list:
        print("\n".join([*(f"{each.name:<16}{each.title}" for each in _known(list(PARTS))), f"{RAW:<16}{RAW_TITLE}"]))
        raise SystemExit(0)
    if arguments.quick:
        arguments.only = arguments.only or ["ours-auto", "gunicorn", RAW]
    defaults = {
        "rounds": 2 if arguments.quick else 5,
        "seconds": 4.0 if arguments.quick else 5.0,
        "callers": [8, 32] if arguments.quick else list(CALLERS),
        "parts": ["throughput", "raw"] if arguments.quick else list(PARTS),
    }
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    names = {each.name for each in _known(list(PARTS))} | {RAW}
    unknown = sorted(set(arguments.only or ()) - names)
    if unknown:
        parser.error(f"--only names {unknown[0]!r}; there are: {', '.join(sorted(names))}")
    return arguments


def _known(parts: Sequence[str]) -> list[Contender]:
    found = [*contenders.ours(), contenders.minimal(), *contenders.with_code(), *contenders.peers()]
    return [*found, contenders.guarded(), *contenders.plain()] if "routes" in parts else found


def allow_open_files() -> None:
    """Four times capacity at ten seconds' patience needs thousands of sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# ------------------------------------------------------------------------------------------------------------ rounds


def _rounds(
    chosen: Sequence[Contender], plan: Plan, sent: Pictures, arguments: argparse.Namespace
) -> tuple[list[Sample], list[str]]:
    """All rounds. The order is turned by one each time, so that nobody always follows the same neighbour."""
    samples: list[Sample] = []
    failures: list[str] = []
    with_raw = "raw" in plan.parts and (not arguments.only or RAW in arguments.only)
    for number in range(1, arguments.rounds + 1):
        turn = (number - 1) % max(1, len(chosen))
        for contender in chosen if with_raw else ():
            if contender.kind == "ours":
                wait_for_quiet(arguments.patience, partial(_say, f"round {number}, {_raw_name(contender)}"))
                samples += _measure_raw(contender, number, plan)
        for contender in [*chosen[turn:], *chosen[:turn]]:
            prefix = f"round {number} of {arguments.rounds}, {contender.name}"
            wait_for_quiet(arguments.patience, partial(_say, prefix))
            try:
                samples += Visit(contender, plan, sent, number, partial(_say, prefix)).run()
            except VisitFailedError as error:
                failures.append(f"{prefix}: {error}")
                _say("FAIL", failures[-1])
    order = [each.name for each in chosen]
    order += [_raw_name(each) for each in chosen]
    return sorted(samples, key=lambda each: order.index(each.contender)), failures


def _measure_raw(contender: Contender, number: int, plan: Plan) -> list[Sample]:
    """What the model of this row can do without a server."""
    settings = contender.environment
    rates = raw.measure(plan.seconds, settings.get("RUNTIME", "auto"), settings.get("PRECISION", "auto"))
    name = _raw_name(contender)
    _say(f"round {number}, {name}", ", ".join(f"{how} {rate:.1f} images/s" for how, rate in rates.items()))
    alone = Sample(name, "throughput_1_per_s", number, rates[raw.ALONE])
    best = max(rates.values())
    return [alone, *(Sample(name, f"throughput_{each}_per_s", number, best) for each in plan.callers if each > 1)]


def _raw_name(contender: Contender) -> str:
    return contender.name.replace("ours", RAW, 1)


def _say(who: str, text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {who}: {text}", flush=True)


# ----------------------------------------------------------------------------------------------------------- telling


def _head(arguments: argparse.Namespace, digest: str) -> list[str]:
    given = " ".join(sys.argv[1:])
    options = f' OPTIONS="{given}"' if given else ""
    load = os.getloadavg()[0]
    lines = [
        f"# Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        f"- Command: `make bench{options}`",
        f"- Machine: {os.cpu_count()} cores, {_processor()}; Python {platform.python_version()}",
        f"- {arguments.rounds} rounds, {arguments.seconds:g} s each; resnet18 {digest[7:19]}; 640×480 JPEGs of 90 kB",
        f"- Load average before: {load:.2f}. The load generator shares the cores with what it measures.",
    ]
    if load > QUIET_LOAD:
        lines.append("- NOTE: this machine was busy before the run; the ratios bear it better than the figures.")
    return lines


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _write(
    samples: Sequence[Sample],
    titles: dict[str, str],
    head: Sequence[str],
    arguments: argparse.Namespace,
    failures: Sequence[str],
) -> None:
    folder = pictures.FOLDER / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    cost = [
        f"- On average the load generator used {_mean(samples, 'generator_cores'):.2f} cores, and what has no part in "
        f"this {_mean(samples, 'others_cores'):.2f}."
    ]
    text = report.document(samples, titles, [*head, *cost, *(f"- FAILED: {each}" for each in failures)])
    rows = [asdict(each) | {"value": None if math.isnan(each.value) else each.value} for each in samples]
    result = {"head": list(head), "failures": list(failures), "titles": titles, "samples": rows}
    (folder / "table.md").write_text(text)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    callers = 32 if 32 in arguments.callers else max(arguments.callers)
    measure, title = f"throughput_{callers}_per_s", f"Images a second, {callers} callers at once"
    svg = chart.draw(samples, titles, measure, title, f"resnet18, {head[3][11:]}; median and span of the rounds")
    if svg:
        (folder / "chart.svg").write_text(svg)
    print(json.dumps(result) if arguments.json else f"\n{text}", flush=True)
    print(f"Written: {folder.relative_to(pictures.ROOT)}/", file=sys.stderr)


def _mean(samples: Sequence[Sample], part: str) -> float:
    """Mean of all measures with this in their name."""
    values = [each.value for each in samples if part in each.measure]
    return sum(values) / len(values) if values else 0.0


if __name__ == "__main__":
    sys.exit(main())
