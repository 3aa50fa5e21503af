"""How much may arrive at once, for Apache's module that takes bodies in: ``apache/modules/mod_arrivals.c``. A leaf."""

from __future__ import annotations

import os
from pathlib import Path

from app.config import Settings, edge_address
from app.host import machine
from app.host.sizing import Sizes

FOLDER = Path("run", "arriving")
# Of the threads that read and answer. The rest is for those who ask without a body, and for health.
BODIES_SHARE = 0.75
BODIES_SHARE_AN_ADDRESS = 0.25
# Of one child's threads: connections that have sent no whole head, of one address and in all. Each costs about 25 kB,
# no thread. Of seven times the threads Apache lets nobody in any more (pool.conf): this is less.
WAITING_PER_THREAD = 4
# Of the threads, those that may hold back a refusal whose caller came by a proxy and gets too many of them.
HELD_BACK_SHARE = 0.5
# Of the threads, those that may wait some milliseconds for the next request of the connection that they have answered.
STAYING_SHARE = 0.25
# Requests without a body that the app gets at once, for each of its processes: one computes, as only one can, and the
# others are on their way to it and back.
TURNS_A_PROCESS = 4
# Refusals a second that one address gets before it waits, for each core: less than a tenth of it. Those by the app
# count five times.
REFUSALS_A_CORE = 500
# Where STATE_DIR is in memory, what arrives is memory too: so much of what requests may hold, and room for two.
BYTES_SHARE = 0.5
LEAST_BODIES = 2
# The table of bodies that were answered: as many as answers can be kept, twice. See apache/modules/mod_arrivals.c.
ANSWERED = Path("run", "answered")
ANSWERED_HEAD_BYTES = 64
ANSWER_KEPT_BYTES = 320
# Of its beginning and of all of it.
BITS_A_BODY = 2 * 16
# 32 MiB for each half: beyond 5 GiB of kept answers the oldest may be refused while too many ask.
MOST_ANSWERED_BITS = 1 << 28
ANSWER_BYTES = 2 * 1024**2


def definitions(settings: Settings, sizes: Sizes) -> dict[str, object]:
    """What ``apache/conf/arrivals.conf`` asks for, for each of Apache's children."""
    threads, children = sizes.server_threads, sizes.server_processes.value
    in_all = max(sizes.request_memory.value * BYTES_SHARE, LEAST_BODIES * settings.request_max_bytes * children)
    return {
        "CASK_ARRIVALS_FOLDER": settings.state_dir / FOLDER,
        "CASK_ARRIVALS_MAX_BYTES": int(in_all / children),
        "CASK_ARRIVALS_MAX_BODIES": max(1, int(threads * BODIES_SHARE)),
        "CASK_ARRIVALS_MAX_BODIES_AN_ADDRESS": max(1, int(threads * BODIES_SHARE_AN_ADDRESS)),
        "CASK_ARRIVALS_MAX_WAITING_AN_ADDRESS": threads * WAITING_PER_THREAD,
        "CASK_ARRIVALS_MAX_HELD_BACK": int(threads * HELD_BACK_SHARE),
        "CASK_ARRIVALS_TURNS": max(1, TURNS_A_PROCESS * sizes.web_processes.value // children),
        "CASK_ARRIVALS_MAX_STAYING": int(threads * STAYING_SHARE),
        "CASK_ARRIVALS_REFUSALS": REFUSALS_A_CORE * machine.available_cores(),
        "CASK_ANSWER_BYTES": ANSWER_BYTES,
        "CASK_HEADER_SECONDS": settings.server_header_timeout_seconds,
        # Apache would warn of an empty one.
        "CASK_EDGE": edge_address() or "none",
    }


def make_answered(settings: Settings) -> None:
    """An empty table where there is none of this size; none where no answers are kept. Raises OSError."""
    path = settings.state_dir / ANSWERED
    bodies = settings.cache_max_bytes // ANSWER_KEPT_BYTES
    bits = min(MOST_ANSWERED_BITS, 1 << (BITS_A_BODY * bodies).bit_length())
    size = ANSWERED_HEAD_BYTES + 2 * bits // 8
    if settings.cache == "off" or (path.exists() and path.stat().st_size != size):
        path.unlink(missing_ok=True)
    if settings.cache != "off":
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            # All of it on the disk: to touch a hole while the disk is full would end Apache (SIGBUS).
            os.posix_fallocate(file.fileno(), 0, size)
