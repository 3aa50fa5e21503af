"""Do threads, memory and open files suit this machine, or this container's share of it?"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from app.cli.checks import Finding, Surroundings, fail, megabytes, ok, warn
from app.host import machine, sizing
from app.web.ops import processes

# Beyond what sizing counts: Apache, the ops process, temporary files.
OTHER_BYTES = 100 * 1024**2
TIGHT = 0.85
# With built models and one web process the service runs in so much; the need is an estimate for torch in the engine.
LEAST_BYTES = 350 * 1024**2
# Apache's children hold a connection and a file to the daemon for each caller.
FILES_A_CONNECTION, OTHER_FILES = 2, 200


def threads(here: Surroundings) -> Iterator[Finding]:
    """Engine and web against the cores."""
    settings, cores = here.settings, machine.available_cores()
    sizes = sizing.choose(settings)
    engine = sizes.engine_workers.value * settings.engine_torch_threads
    said = (
        f"{cores} cores; engine {sizes.engine_workers.value} × {settings.engine_torch_threads} threads, "
        f"web {sizes.web_processes.value} × {sizes.web_threads.value} threads"
    )
    if machine.device(settings.device) == machine.CPU and engine > cores:
        yield warn(
            "Threads", f"{said}; the engine has more threads than cores", "ENGINE_WORKERS=0 ENGINE_TORCH_THREADS=1"
        )
    elif sizes.web_processes.value > 2 * cores:
        yield warn("Threads", f"{said}; more web processes than two a core", "WEB_PROCESSES=0")
    else:
        yield ok("Threads", said)


def memory(here: Surroundings) -> Iterator[Finding]:
    """What is needed against the limit of the machine or the container; what is used where the service runs."""
    limit = machine.available_bytes()
    sizes = sizing.choose(here.settings)
    need = sizing.BASE_BYTES + sizes.web_processes.value * sizing.WEB_PROCESS_BYTES + OTHER_BYTES
    used = sum(process.resident_bytes for process in processes.alive(here.settings.state_dir))
    said = f"{megabytes(need)} are needed at the start, {megabytes(limit)} allowed"
    if used:
        said += f"; web and ops use {megabytes(used)} now"
    if need > limit and used:
        # It runs, so the estimate is too high for these models and callers so far.
        yield warn("Memory", said, "Fewer MODELS or a larger CONTAINER_MEMORY, before the kernel ends a process.")
    elif need > limit:
        tell = fail if limit < LEAST_BYTES else warn
        yield tell("Memory", said, "WEB_PROCESSES=1, fewer MODELS, make model-build, or a larger CONTAINER_MEMORY")
    elif need > TIGHT * limit:
        yield warn("Memory", said, "Mind large images and further models; see docs/operations.md, Sizing.")
    elif not used and (free := _free_bytes()) and free < need:
        yield warn("Memory", f"{said}; only {megabytes(free)} are free now", "End what else uses this machine.")
    else:
        yield ok("Memory", said)


def _free_bytes() -> int:
    """What the machine could give now; 0 where it does not say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def open_files(here: Surroundings) -> Iterator[Finding]:
    """Whether Apache may hold so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = FILES_A_CONNECTION * sizing.choose(here.settings).server_threads + OTHER_FILES
    said = f"{soft} in a process; about {need} are needed"
    if soft < need:
        yield warn("Open files", said, f"ulimit -n {need}" + ("" if hard >= need else ", as root or in limits.conf"))
    else:
        yield ok("Open files", said)


def threads_allowed(here: Surroundings) -> Iterator[Finding]:
    """Whether as many processes and threads are allowed as may be needed; the start refuses fewer."""
    need, most = sizing.choose(here.settings).needed_threads, machine.most_threads()
    said = f"{need} processes and threads may be needed, {most or 'any number'} allowed"
    if most is not None and most < need:
        next_step = "Raise pids_limit (docker/compose.yaml) or TasksMax, or lower SERVER_MAX_CONNECTIONS."
        yield fail("Process limit", said, next_step)
    else:
        yield ok("Process limit", said)
