"""What ``make model-test`` asks of a model: each check returns a sentence, or raises CheckError with what is wrong.

Each stands for something that the service promises to callers of every model.
"""

from __future__ import annotations

import json
import mimetypes
import random
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import CaskError, InputRefusedError
from app.model_code.differences import difference
from app.model_making import samples
from app.model_making.trial import BATCH, JSON, CheckError, Trial, answer_of, short

# A batch of another order is drawn with it.
SEED = 8
ROUNDS_OF_TWO_CALLERS = 25
# Memory: calls that do not count, as caches fill; calls that do; most seconds for them; and megabytes that are no leak.
FIRST_CALLS, CALLS, CALLS_SECONDS, LEAK_MB = 100, 1000, 60.0, 16.0
SPEED_CALLS, SPEED_SECONDS = 200, 10.0
# What the way to the process may cost a call, by the design: milliseconds, and where a call lasts long a share of it.
MOST_MS, MOST_SHARE = 1.0, 0.05
SECONDS_OF_BAD_INPUTS = 30.0


# ── the checks, in their order ────────────────────────────────────────────────────────────────────────────────────────


def check_examples(trial: Trial) -> str:
    """Each example is answered; that it is answered as before was compared when it was added."""
    for each in trial.examples:
        # Another way than when it was added: that of a caller.
        kind = JSON if each.suffix == ".json" else mimetypes.guess_type(each.name)[0] or "application/octet-stream"
        reply = trial.ask(each.read_bytes(), kind)
        if reply.status != 200 and reply.document.get("code") != InputRefusedError.code:
            raise CheckError(f"{each.name} is refused: {reply.document.get('detail')}", f"Mend {each.name}.")
    if not trial.examples:
        return "there is none; examples/01.json would be the body of a request"
    return f"{len(trial.examples)} answered, {trial.expected}"


def check_inputs(trial: Trial) -> str:
    """What the types allow is answered or refused with a reason; what they do not never reaches the model."""
    signature, until = trial.stand.manifest.signature, time.monotonic() + SECONDS_OF_BAD_INPUTS
    first = next((found for each in trial.examples if (found := _one_of(each, signature))), None)
    bodies = samples.fitting(signature, first)
    counts, fits = {"answered": 0, "refused": 0}, first
    for body in bodies:
        if time.monotonic() > until:
            break
        reply = trial.ask(json.dumps(body).encode())
        counts["answered" if reply.status == 200 else "refused"] += 1
        fits = fits or (body if reply.status == 200 else None)
    stopped = 0
    for name, body in samples.wrong(signature, fits or {}):
        reply = trial.ask(json.dumps(body).encode())
        if reply.rows or reply.status == 200:
            raise CheckError(f"{name} does not fit its type and reached the model: {short(body)}")
        stopped += 1
    return f"{counts['answered']} answered, {counts['refused']} refused, {stopped} stopped before predict"


def _one_of(example: Path, signature: dict[str, Any]) -> dict[str, Any] | None:
    """The parameters of an example in JSON with one item; None for another."""
    if example.suffix != ".json":
        return None
    body = json.loads(example.read_bytes())
    return dict(body) if isinstance(body, dict) and body.keys() >= signature["inputs"].keys() else None


def check_batches(trial: Trial) -> str:
    """The same answers alone, and with seven others in any order."""
    size = trial.stand.manifest.serve.max_batch_size
    # Without @batch a list of several is none the less what predict promises to take.
    items, options, answers = trial.alike(BATCH if size == 1 else min(BATCH, size))
    for item, answer in zip(items, answers, strict=True):
        if differs := difference(answer, trial.compute([item], options)[0], trial.tolerance):
            raise CheckError(
                f"asked again, it answers otherwise: {differs}", "Seed what is random; call .eval() on a network."
            )
    order = list(range(len(items)))
    shuffled = random.Random(SEED).sample(order, len(order))  # noqa: S311
    for each in (order, order[::-1], shuffled):
        found = trial.compute([items[number] for number in each], options)
        for place, number in enumerate(each):
            if differs := difference(answers[number], found[place], trial.tolerance):
                raise CheckError(
                    f"alone an item is answered otherwise than as number {place + 1} of {len(each)}: {differs}",
                    "The answers must be in the order of the items, and none may depend on its neighbours.",
                )
    return f"of 1 and of {len(items)} in three orders: the same answers"


def check_callers(trial: Trial) -> str:
    """Two callers at once get each its own answers."""
    items, options, answers = trial.alike(2)
    wrong: list[str] = []

    def run(number: int) -> None:
        for _ in range(ROUNDS_OF_TWO_CALLERS):
            try:
                found = trial.stand.compute([items[number]], options)[0]
                differs = difference(answers[number], answer_of(found), trial.tolerance)
            except CaskError as error:
                differs = str(error.message)
            if differs:
                wrong.append(differs)
                return

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise CheckError(f"an answer changes while another caller asks: {wrong[0]}", "Keep nothing of a call in self.")
    return f"at once, {ROUNDS_OF_TWO_CALLERS} requests each: the same answers"


def check_memory(trial: Trial) -> str:
    """The process does not grow with each call."""
    items, options, _ = trial.alike()
    until, sizes = time.monotonic() + CALLS_SECONDS, []
    marks = (FIRST_CALLS, (FIRST_CALLS + CALLS) // 2, CALLS)
    done = 0
    while done < CALLS and time.monotonic() < until:
        trial.compute([items[done % len(items)]], options)
        done += 1
        if done in marks:
            sizes.append(_allocated_mb(trial.stand.running.pid))
        elif done % 50 == 0 and sizes and _allocated_mb(trial.stand.running.pid) > sizes[0] + 10 * LEAK_MB:
            break
    now = _allocated_mb(trial.stand.running.pid)
    grown = now - (sizes or [now])[0]
    counted = max(1, done - FIRST_CALLS)
    if grown > LEAK_MB and now - sizes[-2 if done == CALLS else -1] > LEAK_MB / 4:
        raise CheckError(
            f"it grew by {grown:.0f} MB in {counted} calls, {grown / counted:.2f} MB each",
            "Look for a list or a cache in self, or a tensor that keeps its graph (torch.inference_mode).",
        )
    return f"{grown:+.1f} MB over {done:,} calls".replace(",", " ")


def check_speed(trial: Trial) -> str:
    """The way to the process and back costs little beside predict."""
    items, options, _ = trial.alike()
    until, direct, whole = time.monotonic() + SPEED_SECONDS, [], []
    for number in range(SPEED_CALLS):
        started = time.perf_counter()
        trial.compute([items[number % len(items)]], options)
        whole.append(1000 * (time.perf_counter() - started))
        direct.append(1000 * trial.stand.running.predict_seconds)
        if time.monotonic() > until:
            break
    cost = [one - other for one, other in zip(whole, direct, strict=True)]
    # The least: others on this machine disturb the rest.
    if min(cost) > max(MOST_MS, MOST_SHARE * statistics.median(direct)):
        raise CheckError(
            f"{min(cost):.2f} ms a call are spent beside predict, more than {MOST_MS:g} ms and {MOST_SHARE:.0%} of it",
            "Ask for smaller images (Shape), or answer with less.",
        )
    called, spent = statistics.median(direct), statistics.median(cost)
    return f"{called:.2f} ms in predict, {spent:.2f} ms more through the process"


CHECKS: dict[str, Callable[[Trial], str]] = {
    "examples": check_examples,
    "inputs": check_inputs,
    "batches": check_batches,
    "callers": check_callers,
    "memory": check_memory,
    "speed": check_speed,
}


def _allocated_mb(pid: int) -> float:
    """What memory_mb limits: what the process may write."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        raise CheckError("its process ended", "See what it wrote.") from None
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) / 1024
