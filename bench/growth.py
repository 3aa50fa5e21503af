"""``python -m bench.growth``: how the cost of Cask grows with models, callers, bodies, loaded models, cores and jobs.

    python -m bench.growth                          everything, about fifteen minutes after the first time
    python -m bench.growth --parts callers bodies   some of it

One server at a time, with the settings of ``make bench``; prints a table for each part. Networks other than the
measured resnet18 have random weights, which costs the same time and names nothing: they are never compared by answers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import math
import os
import shutil
import signal
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from app.models import builds, manifests
from app.runtimes.build import build
from app.runtimes.importing import add
from bench import contenders, load, memory, model, own_priority, pictures, requests, run
from bench.contenders import Contender, Running
from bench.requests import Request
from bench.statistics import percentile
from training.scenes import LABELS

# Further networks, and their builds, apart from those of `make bench`: each of its starts copies them.
STORE, STATE = pictures.FOLDER / "networks", pictures.FOLDER / "networks-state"
COPIES, COPIES_STATE = pictures.FOLDER / "copies", pictures.FOLDER / "copies-state"
# Served in bf16: random weights give int8 no ranges to learn.
NETWORKS = ("mobilenet_v3_small", "resnet50", "vit_b_16")
FORM = "openvino bf16"
DETECTOR = "site-safety-detector"
CALLERS = (1, 8, 32, 64, 128, 256, 512, 1000)
# Sides of the pictures that are sent, in pixels, and the quality that makes them about 10 kB to 10 MB.
BODIES = ((200, 150, 95), (640, 480, 92), (1280, 960, 95), (2560, 1920, 95), (5120, 3840, 97), (7000, 5250, 99))
LOADED = (1, 10, 50)
# 32 MB of them are the most that one request may bring (REQUEST_MAX_BYTES).
JOB_PICTURES = 350
PLANNED_CORES = (1, 2, 4, 8, 16)
PLANNED_LOADS = (0.5, 0.7, 0.9)
WAIT_SECONDS, PERIOD_SECONDS = 300.0, 0.1
IDLE_SECONDS, IDLE_SHARE = 1.0, 0.05
SECONDS = 4.0


@dataclass(frozen=True)
class Figures:
    """One closed loop: right or any labels a second, latencies in ms, share refused, core-ms an image by the server."""

    per_second: float
    p50_ms: float
    p99_ms: float
    refused: float
    core_ms: float

    def cells(self) -> list[str]:
        """The columns of ``HEAD``."""
        return [
            f"{self.per_second:.1f}",
            f"{self.p50_ms:.0f}",
            f"{self.p99_ms:.0f}",
            f"{self.refused:.1%}",
            f"{self.core_ms:.1f}",
        ]


HEAD = ["images/s", "p50 (ms)", "p99 (ms)", "refused", "core-ms an image"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit status: 0 measured, 2 wrong usage."""
    parts: dict[str, Callable[[], None]] = {
        "models": measure_models,
        "callers": measure_callers,
        "bodies": measure_bodies,
        "loaded": measure_loaded,
        "cores": measure_cores,
        "job": measure_job,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="what to measure (default: all)")
    chosen = parser.parse_args(argv).parts
    # SIGTERM ends the measured service too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run.allow_open_files()
    own_priority.take()
    model.ensure()
    for part in chosen:
        parts[part]()
    return 0


# ------------------------------------------------------------------------------------------------------------- parts


def measure_models() -> None:
    """Other networks, the detector, and a model with code."""
    rows = []
    for contender in [_measured(), *map(_network, NETWORKS), _detector(), _with_code()]:
        with _started(contender) as server:
            for callers in (1, 8, 32):
                figures = _closed(server, _pictures(contender), callers)
                rows.append([contender.title, str(callers), *figures.cells()])
            rows[-1].append(f"{memory.tree_pss_mb(server.pid):.0f}")
    _print(f"Models (networks of random weights: {FORM})", ["model", "callers", *HEAD, "memory (MB)"], rows)


def measure_callers() -> None:
    """One to a thousand callers who heed refusals."""
    rows = []
    with _started(_measured()) as server:
        for callers in CALLERS:
            figures = _closed(server, _pictures(server.contender), callers)
            rows.append([str(callers), *figures.cells(), f"{memory.tree_pss_mb(server.pid):.0f}"])
    _print("Callers", ["callers", *HEAD, "memory (MB)"], rows)


def measure_bodies() -> None:
    """Pictures of 10 kB to 10 MB; the model's input stays as it is."""
    rows = []
    with _started(_measured()) as server:
        for width_px, height_px, quality in BODIES:
            picture = _resized(width_px, height_px, quality)
            for callers in (1, 8):
                figures = _closed(server, _sent(server.contender, [picture]), callers)
                size = f"{len(picture) / 1000:.0f} kB, {width_px} × {height_px}"
                rows.append([size, str(callers), *figures.cells(), f"{memory.tree_pss_mb(server.pid):.0f}"])
    _print("Bodies", ["JPEG", "callers", *HEAD, "memory (MB)"], rows)


def measure_loaded() -> None:
    """The measured network under many names, asked in turn."""
    rows = []
    for count in LOADED:
        with _copies(count) as (contender, names):
            began = time.perf_counter()
            with _started(contender) as server:
                made = _interleaved([f"{contender.predict_path}&model={name}" for name in names])
                # All are asked in turn, so as many right answers on end are of all of them.
                _wait_answers(server, made, count)
                ready_seconds = time.perf_counter() - began
                _wait_idle(server)
                rest_mb = memory.tree_pss_mb(server.pid)
                figures = _closed(server, made, 8)
                busy_mb = memory.tree_pss_mb(server.pid)
            rows.append([str(count), f"{ready_seconds:.1f}", f"{rest_mb:.0f}", f"{busy_mb:.0f}", *figures.cells()])
    _print("Models loaded, 8 callers", ["models", "ready (s)", "at rest (MB)", "memory (MB)", *HEAD], rows)


def measure_cores() -> None:
    """The service on one core and on two; more by a queueing model, from what one image costs here."""
    rows = []
    for cores in sorted({1, contenders.CORES}):
        contender = _on_cores(cores)
        with _started(contender) as server:
            for callers in (1, 8, 32):
                rows.append([str(cores), str(callers), *_closed(server, _pictures(contender), callers).cells()])
    _print("Cores", ["cores", "callers", *HEAD], rows)
    core_seconds = float(rows[-1][-1]) / 1000
    planned = [
        [
            str(cores),
            f"{cores / core_seconds:.0f}",
            *(f"{_waited_ms(cores, each, core_seconds):.1f}" for each in PLANNED_LOADS),
        ]
        for cores in PLANNED_CORES
    ]
    loads = [f"mean wait at {each:.0%} (ms)" for each in PLANNED_LOADS]
    _print(f"On paper, {1000 * core_seconds:.1f} core-ms an image", ["cores", "images/s at most", *loads], planned)


def measure_job() -> None:
    """One background job, with nobody else asking."""
    with _started(_measured()) as server:
        began, before = time.perf_counter(), memory.tree_cpu_seconds(server.pid)
        job = _ask(server, "/v1/jobs?task=classify", _archive(JOB_PICTURES), "application/x-tar")
        state = _wait(
            lambda: str(_ask(server, job["url"])["state"]),
            lambda found: found not in ("queued", "running"),
            lambda: f"the job took over {WAIT_SECONDS:g} s",
        )
        elapsed = time.perf_counter() - began
        spent = sum(memory.tree_cpu_seconds(server.pid).values()) - sum(before.values())
        done = f"{JOB_PICTURES / elapsed:.1f}"
        cells = [str(JOB_PICTURES), state, done, f"{1000 * spent / JOB_PICTURES:.1f}"]
    _print("A job", ["pictures", "state", "images/s", "core-ms an image"], [cells])


# ---------------------------------------------------------------------------------------------------------- services


def _measured() -> Contender:
    return replace(contenders.ours()[0], title="resnet18, int8")


def _with_code() -> Contender:
    (found,) = (each for each in contenders.with_code() if each.name == contenders.WITH_CODE)
    return replace(found, title="resnet18 as a model with code, fp32")


def _detector() -> Contender:
    """The demonstration detector, built for this machine."""
    store = pictures.ROOT / "models"
    manifest = manifests.find(store, [DETECTOR])[0]
    if builds.read(STATE, manifest) is None:
        build.build_model(manifest, STATE)
    return _serving(store, DETECTOR, DETECTOR, "/v1/detect")


def _network(architecture: str) -> Contender:
    """A network of torchvision with random weights, added and built at the first call."""
    folder = STORE / architecture / model.VERSION
    if not folder.exists():
        add.add_model(add.NewModel(architecture, "random", LABELS, architecture, model.VERSION), STORE)
        shutil.copytree(model.STORE / model.NAME / model.VERSION / "samples", folder / "samples")
    manifest = manifests.read(folder)
    if builds.read(STATE, manifest) is None:
        build.build_model(manifest, STATE, build.BuildOptions(use=FORM, only=(FORM,), rounds=1))
    return _serving(STORE, architecture, architecture, "/v1/classify?top_k=1")


def _serving(store: Path, name: str, title: str, path: str) -> Contender:
    settings = {"MODELS_DIR": str(store), "MODELS": name, "MODEL_BUILD": "off"}
    base = contenders.ours()[0]
    return replace(base, title=title, environment=base.environment | settings, predict_path=path, state=STATE)


def _on_cores(cores: int) -> Contender:
    base = _measured()
    command = base.command
    listed = ",".join(str(each) for each in sorted(os.sched_getaffinity(0))[:cores])
    return replace(base, command=lambda port, folder: ["taskset", "-c", listed, *command(port, folder)])


@contextlib.contextmanager
def _copies(count: int) -> Iterator[tuple[Contender, list[str]]]:
    """A service with the measured model under ``count`` names, each with its build."""
    first = manifests.read(model.STORE / model.NAME / model.VERSION)
    report = builds.read(model.BUILT_STATE, first)
    if report is None:
        raise LookupError(f"{first.key} is not built in {model.BUILT_STATE}; python -m bench.model builds it")
    names = [f"copy-{number}" for number in range(count)]
    try:
        for name in names:
            folder = COPIES / name / model.VERSION
            shutil.copytree(
                first.directory,
                folder,
                copy_function=os.link,
                ignore=shutil.ignore_patterns("manifest.toml", "samples"),
            )
            text = (first.directory / "manifest.toml").read_text()
            (folder / "manifest.toml").write_text(text.replace(f'"{model.NAME}"', f'"{name}"'))
            copied = manifests.read(folder)
            place = builds.folder(COPIES_STATE, copied)
            shutil.copytree(report.folder, place, copy_function=os.link, ignore=shutil.ignore_patterns("report.json"))
            builds.write(place, replace(report, model=copied.key, digest=copied.digest))
        base = _measured()
        settings = {"MODELS_DIR": str(COPIES), "MODELS": "", "MODEL_BUILD": "off"}
        yield replace(base, environment=base.environment | settings, state=COPIES_STATE), names
    finally:
        for place in (COPIES, COPIES_STATE):
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _started(contender: Contender) -> Iterator[Running]:
    """Start it and wait until it answers a picture."""
    print(f"{time.strftime('%H:%M:%S')} {contender.title}", file=sys.stderr, flush=True)
    with contenders.running(contender) as server:
        made = _pictures(contender)
        _wait_answers(server, made, 1)
        yield server


def _wait_answers(server: Running, made: Iterator[Request], count: int) -> None:
    """Until so many requests on end were answered."""
    _wait(
        lambda: " ".join(load.once(server.port, next(made), _any_label).outcome for _ in range(count)),
        lambda outcomes: set(outcomes.split()) == {"right"},
        lambda: f"{server.contender.title} gave no answer in {WAIT_SECONDS:g} s; it wrote:\n{server.log_end()}",
    )


def _wait_idle(server: Running) -> None:
    """Until it has learnt what it learns of new models, and rests."""

    def spent_seconds() -> float:
        before = sum(memory.tree_cpu_seconds(server.pid).values())
        time.sleep(IDLE_SECONDS)
        return sum(memory.tree_cpu_seconds(server.pid).values()) - before

    _wait(
        lambda: f"{spent_seconds():.2f}",
        lambda spent: float(spent) < IDLE_SHARE * IDLE_SECONDS,
        lambda: f"{server.contender.title} did not rest within {WAIT_SECONDS:g} s",
    )


# ---------------------------------------------------------------------------------------------------------- requests


def _any_label(body: bytes) -> str:
    json.loads(body)
    return ""


def _pictures(contender: Contender) -> Iterator[Request]:
    return _sent(contender, pictures.held_out())


def _sent(contender: Contender, images: Sequence[bytes]) -> Iterator[Request]:
    return requests.picture_requests(contender.predict_path, contender.form, images, [""] * len(images))


def _interleaved(paths: Sequence[str]) -> Iterator[Request]:
    base = _measured()
    made = [_pictures(replace(base, predict_path=path)) for path in paths]
    return (next(each) for each in itertools.cycle(made))


def _closed(server: Running, made: Iterator[Request], callers: int) -> Figures:
    load.closed(server.port, made, _any_label, min(callers, 8), 1.0)
    before = sum(memory.tree_cpu_seconds(server.pid).values())
    found = load.closed(server.port, made, _any_label, callers, SECONDS)
    spent = sum(memory.tree_cpu_seconds(server.pid).values()) - before
    rate, ended = found.rate(), max(1, len(found.records))
    images = rate * (found.seconds + load.WARM_SECONDS)
    latencies = found.latencies_ms()
    return Figures(
        rate,
        percentile(latencies, 0.5),
        percentile(latencies, 0.99),
        found.count("refused") / ended,
        1000 * spent / images if images else math.nan,
    )


def _resized(width_px: int, height_px: int, quality: int) -> bytes:
    """A held-out picture at another size; scaled up, with its grain."""
    with Image.open(io.BytesIO(pictures.held_out()[0])) as opened:
        buffer = io.BytesIO()
        opened.resize((width_px, height_px)).effect_spread(2).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _archive(count: int) -> bytes:
    buffer = io.BytesIO()
    made = _pictures(_measured())
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(count):
            head, rest = next(made).buffers
            data = bytes(head).partition(b"\r\n\r\n")[2] + bytes(rest)
            entry = tarfile.TarInfo(f"{number:05}.jpg")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _ask(server: Running, path: str, body: bytes | None = None, content_type: str = "") -> dict[str, Any]:
    """GET, or POST where there is a body."""
    headers = {"Content-Type": content_type} if body is not None else {}
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body, headers)
    with urllib.request.urlopen(asked, timeout=WAIT_SECONDS) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _wait(look: Callable[[], str], wanted: Callable[[str], bool], words: Callable[[], str]) -> str:
    """Look until it is as wanted. Raises TimeoutError with these words."""
    end = time.monotonic() + WAIT_SECONDS
    while not wanted(found := look()):
        if time.monotonic() > end:
            raise TimeoutError(words())
        time.sleep(PERIOD_SECONDS)
    return found


# ----------------------------------------------------------------------------------------------------------- figures


def _waited_ms(cores: int, load_share: float, core_seconds: float) -> float:
    """Mean wait for a core, in ms, of arrivals by chance that each need one core for ``core_seconds``: M/M/c.

    By Erlang's C formula; https://en.wikipedia.org/wiki/Erlang_(unit)#Erlang_C_formula.
    """
    offered = cores * load_share
    blocked = 1.0
    # Erlang B by its recurrence, which does not overflow; C follows from it.
    for each in range(1, cores + 1):
        blocked = offered * blocked / (each + offered * blocked)
    waits = blocked / (1 - load_share * (1 - blocked))
    return 1000 * waits * core_seconds / (cores * (1 - load_share))


def _print(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{' --: |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
