"""How many of everything: as the settings say, else by cores and memory, each with its reason. A leaf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.config import Settings
from app.host import machine

# One light process decodes and answers for four cores: decoding runs outside of Python's lock.
CORES_PER_WEB_PROCESS = 4
# So many requests may be in a web process at once. They mostly wait for the engine; a place costs a sleeping thread.
PLACES_PER_WEB_PROCESS = 88
# Threads beyond the places: they only say no, and so a refusal never waits behind a prediction.
REFUSING_THREADS = 8
# Of few threads none only refuses: their callers wait in Apache.
THREADS_PER_REFUSING = 12
# Connections beyond the web threads: slow senders, keep-alive, health. With 600 in all, 400 callers that send their
# headers byte by byte leave health at 100 % (tests/faults/test_slow_callers.py); with 36, mod_wsgi's own, at 64 %.
SPARE_CONNECTIONS = 504
# Apache's children: one a core shares the work, two let one answer while the other is replaced; of many, each wakes up
# for every new connection.
LEAST_SERVER_PROCESSES, MOST_SERVER_PROCESSES = 2, 16
# What an engine with torch, one web process, ops and jobs take before any model and request.
BASE_BYTES = 750 * 1024**2
WEB_PROCESS_BYTES = 80 * 1024**2
# Of the memory that is left beside the processes, requests may hold this much; the rest is for models, and for what the
# system keeps of files. However little is left, one image of a phone fits.
REQUEST_SHARE = 0.6
# Weights in memory, against those on disk: as they were read, and packed for the processor.
LOADED_SHARE = 1.5
LEAST_REQUEST_BYTES = 96 * 1024**2
# One more process that decodes large images for so much of it.
BYTES_PER_DECODING_PROCESS = 512 * 1024**2
MOST_DECODING_PROCESSES = 4
# Who has one keeps a thread for long; most places are for others.
PLACES_PER_DECODING_PROCESS = 4
DECODING_PROCESS_BYTES = 40 * 1024**2
# On a GPU one worker prepares and answers a batch while the other one's is computed.
GPU_WORKERS = 2
# Larger ones are no faster on processors, but the runtime keeps memory for each size that it has met: with 8, 20 MB
# more for resnet18 (docs/decisions/0025-memory.md). On a GPU the build measures which is best.
BATCH_SIZE = 4
UNMEASURED_GPU_BATCH_SIZE = 8
# So many images a core may wait in the engine; beyond that callers hear no, rather than wait for long.
QUEUE_PER_WORKER = 64


# Beside what grows with callers: libraries, logs, models, and threads that look after something.
SPARE_FILES = 64
SPARE_THREADS = 8
RUNTIME_THREADS = 3
# ops, jobs, a build in the background, the scripts that start and stop the service.
OTHER_THREADS = 96


@dataclass(frozen=True)
class Size:
    """One number, and why it is that."""

    name: str
    value: int
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.value} ({self.reason})"


@dataclass(frozen=True)
class Sizes:
    """All numbers of one start."""

    engine_workers: Size
    engine_max_batch_size: Size
    engine_max_queue_size: Size
    web_processes: Size
    web_threads: Size
    web_places: Size
    web_decoders: Size
    web_decoding_processes: Size
    request_memory: Size
    server_max_connections: Size
    server_processes: Size

    @property
    def server_threads(self) -> int:
        """Threads of each of Apache's children: together at least as many as there may be connections."""
        return -(-self.server_max_connections.value // self.server_processes.value)

    @property
    def needed_files(self) -> int:
        """Files and connections that one process may have open at once."""
        web_threads = self.web_threads.value
        # A caller, the way to a web process and a body on the disk; a connection to the engine, one to the caller's, a
        # form's part on the disk, and what SQLite opens; a connection for each web thread.
        apache, web, engine = 3 * self.server_threads, 5 * web_threads, web_threads * self.web_processes.value
        return max(apache, web, engine) + SPARE_FILES

    @property
    def needed_threads(self) -> int:
        """Processes and threads that all of us may have at once."""
        web_threads = (self.web_threads.value + SPARE_THREADS) * self.web_processes.value
        apache = (self.server_threads + SPARE_THREADS) * self.server_processes.value
        # The engine has a thread for each connection, and its runtime some for each core.
        engine = web_threads + RUNTIME_THREADS * self.engine_workers.value
        decoding = self.web_decoding_processes.value * (self.web_processes.value + 1)
        return web_threads + apache + engine + decoding + OTHER_THREADS

    def __iter__(self) -> Iterator[Size]:
        return iter(vars(self).values())


def choose(settings: Settings, cores: int | None = None, memory_bytes: int | None = None) -> Sizes:
    """The numbers for this machine. ``cores`` and ``memory_bytes`` are the cgroup's or the machine's unless given."""
    cores = cores or machine.available_cores()
    web = _web(settings, cores, memory_bytes or machine.available_bytes())
    threads = web["web_processes"].value * web["web_threads"].value
    return Sizes(**_engine(settings, cores), **web, **_server(settings, cores, threads))


def _engine(settings: Settings, cores: int) -> dict[str, Size]:
    device = machine.device(settings.device)
    workers = _size("ENGINE_WORKERS", settings.engine_workers, *_workers(device, cores))
    batch = _size("ENGINE_MAX_BATCH_SIZE", settings.engine_max_batch_size, batch_size(device), _batch_reason(device))
    queue = _size(
        "ENGINE_MAX_QUEUE_SIZE",
        settings.engine_max_queue_size,
        max(QUEUE_PER_WORKER * workers.value, settings.request_max_images, batch.value),
        f"{QUEUE_PER_WORKER} images a worker",
    )
    return {"engine_workers": workers, "engine_max_batch_size": batch, "engine_max_queue_size": queue}


def _web(settings: Settings, cores: int, memory_bytes: int) -> dict[str, Size]:
    processes = _size("WEB_PROCESSES", settings.web_processes, *_processes(cores, memory_bytes))
    threads = _size(
        "WEB_THREADS",
        settings.web_threads,
        PLACES_PER_WEB_PROCESS + REFUSING_THREADS,
        f"{PLACES_PER_WEB_PROCESS} that predict and {REFUSING_THREADS} that refuse",
    )
    places = Size(
        "WEB_PLACES",
        max(1, threads.value - min(REFUSING_THREADS, threads.value // THREADS_PER_REFUSING)),
        "predictions at once in a web process; other threads refuse",
    )
    decoders = Size(
        "WEB_DECODERS",
        -(-cores // processes.value),
        "images decoded at once in a web process; more would only share the cores and keep more pixels in memory",
    )
    request_memory = _size(
        "REQUEST_MEMORY_BYTES", settings.request_memory_bytes, *_request_bytes(settings, memory_bytes, processes.value)
    )
    by_memory = request_memory.value // BYTES_PER_DECODING_PROCESS // processes.value
    by_places = places.value // PLACES_PER_DECODING_PROCESS
    decoding = Size(
        "WEB_DECODING_PROCESSES",
        max(1, min(by_memory, decoders.value, by_places, MOST_DECODING_PROCESSES)),
        "processes of a web process that decode what is large or takes long, started when there is such an image",
    )
    return {
        "web_processes": processes,
        "web_threads": threads,
        "web_places": places,
        "web_decoders": decoders,
        "web_decoding_processes": decoding,
        "request_memory": request_memory,
    }


def _server(settings: Settings, cores: int, web_threads: int) -> dict[str, Size]:
    connections = _size(
        "SERVER_MAX_CONNECTIONS",
        settings.server_max_connections,
        web_threads + SPARE_CONNECTIONS,
        f"{web_threads} web threads and {SPARE_CONNECTIONS} for slow senders and health",
    )
    processes = Size(
        "SERVER_PROCESSES",
        min(max(cores, LEAST_SERVER_PROCESSES), MOST_SERVER_PROCESSES, connections.value),
        f"one a core, from {LEAST_SERVER_PROCESSES} to {MOST_SERVER_PROCESSES}; the connections are shared among them",
    )
    return {"server_max_connections": connections, "server_processes": processes}


def batch_size(device: str) -> int:
    """Most images at once where nobody has said, and no build has measured, how many."""
    return BATCH_SIZE if device == machine.CPU else UNMEASURED_GPU_BATCH_SIZE


def _size(name: str, requested: int, chosen: int, reason: str) -> Size:
    return Size(name, requested, "set") if requested else Size(name, chosen, reason)


def _request_bytes(settings: Settings, memory_bytes: int, processes: int) -> tuple[int, str]:
    # The jobs' worker decodes too.
    left = memory_bytes - BASE_BYTES - processes * WEB_PROCESS_BYTES - (processes + 1) * DECODING_PROCESS_BYTES
    left -= int(_weights_bytes(Path(settings.models_dir)) * LOADED_SHARE)
    chosen = max(LEAST_REQUEST_BYTES, int(left * REQUEST_SHARE))
    return chosen, f"for all requests together, of {memory_bytes // 1024**2} MB"


def _weights_bytes(models_dir: Path) -> int:
    """What the models' weights take on disk, of each model its largest version's."""
    try:
        names = [each for each in models_dir.iterdir() if each.is_dir()]
        return sum(
            max((file.stat().st_size for file in each.glob("*/*") if file.is_file()), default=0) for each in names
        )
    except OSError:
        # It cannot be read by who asks here; the engine will say so.
        return 0


def _workers(device: str, cores: int) -> tuple[int, str]:
    if device == machine.CPU:
        return cores, f"one a core, {cores} here"
    return GPU_WORKERS, f"on {device} one prepares while the other one's batch is computed"


def _batch_reason(device: str) -> str:
    if device == machine.CPU:
        return "more at once are no faster on a processor, and take memory"
    return f"until make model-build has measured what is best on {device}"


def _processes(cores: int, memory_bytes: int) -> tuple[int, str]:
    by_cores = -(-cores // CORES_PER_WEB_PROCESS)
    by_memory = max(1, (memory_bytes - BASE_BYTES) // WEB_PROCESS_BYTES)
    if by_memory < by_cores:
        return by_memory, f"no more fit into {memory_bytes // 1024**2} MB"
    return by_cores, f"one for {CORES_PER_WEB_PROCESS} cores"
