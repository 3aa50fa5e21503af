"""The raw limit: decode and predict in one process without HTTP, with as many threads as the engine has workers.

``python -m bench.raw SECONDS RUNTIME PRECISION`` prints images a second as JSON, for single images and small batches.
What a server reaches of the best of them is what its way of carrying requests leaves over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from app.inference import images
from app.inference.images import Limits
from app.inference.results import ClassifyOptions
from app.models import manifests
from app.runtimes import registry
from app.runtimes.registry import Plan
from bench import model, own_priority, pictures

BATCH_SIZES = (1, 4, 8)
ALONE = "one thread"
WARM_SECONDS = 1.0
LIMITS = Limits(max_bytes=2**24, max_pixels=50_000_000, formats=("JPEG",))


def measure(seconds: float, runtime: str = registry.AUTO, precision: str = registry.AUTO) -> dict[str, float]:
    """Images a second by how they are computed, measured in a process of its own. Raises OSError when that fails."""
    command = [sys.executable, "-m", "bench.raw", str(seconds), runtime, precision]
    done = subprocess.run(
        command,
        cwd=pictures.ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=own_priority.give_back,
        start_new_session=True,
    )
    if done.returncode:
        raise OSError(f"bench.raw ended with {done.returncode}: {done.stderr[-1000:]}")
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


def run(seconds: float, runtime: str, precision: str) -> dict[str, float]:
    """Images a second by how they are computed, in this process."""
    manifest = manifests.find(model.STORE, [model.NAME])[0]
    plan = Plan(model.BUILT_STATE, os.cpu_count() or 1, 1, runtime, precision)
    loaded = registry.load_model(manifest, plan=plan)
    data = pictures.held_out()

    def batch(first: int, size: int) -> None:
        decoded = [images.read(data[(first + i) % len(data)], manifest.input, LIMITS).pixels for i in range(size)]
        loaded.predict(decoded, [ClassifyOptions(top_k=1)] * size)

    rates = {f"batches of {size}": _rate(batch, size, seconds, os.cpu_count() or 1) for size in BATCH_SIZES}
    return {ALONE: _rate(batch, 1, seconds, 1), **rates}


def _rate(batch: Callable[[int, int], None], size: int, seconds: float, threads_count: int) -> float:
    """Images a second of so many threads."""
    done = [0] * threads_count
    began = time.perf_counter() + WARM_SECONDS
    end = began + seconds

    def work(number: int) -> None:
        first = number * 37
        while (now := time.perf_counter()) < end:
            batch(first, size)
            first += size
            if now >= began:
                done[number] += size

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(done))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


if __name__ == "__main__":
    print(json.dumps(run(float(sys.argv[1]), *sys.argv[2:4])))
