"""Writes answers to the store off the requests' way: in batches, from a short list, and drops what is too much."""

from __future__ import annotations

import logging
import threading
import time

from app.cache.entries import Entry, to_text
from app.cache.guarded_store import GuardedStore
from app.telemetry import metrics

log = logging.getLogger("cask.web")

# Some seconds of the fastest model's answers.
MAX_WAITING = 2000
# So long answers are gathered before they are written: each writing costs a lock and a waking.
PERIOD_SECONDS = 0.1


class Keeper:
    """A thread with a short list before it; it starts with the first answer. Thread-safe."""

    def __init__(self, store: GuardedStore) -> None:
        self._store = store
        self._waiting: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, key: str, entry: Entry) -> None:
        """Take one answer, or drop it; costs its caller some microseconds."""
        with self._lock:
            is_first, is_full = not self._waiting, len(self._waiting) >= MAX_WAITING
            if not is_full:
                self._waiting[key] = entry
            # Others have been here for those between.
            if is_first or is_full:
                self._wake_up()

    def find(self, key: str) -> Entry | None:
        """One that is not written yet."""
        return self._waiting.get(key)

    def flush(self) -> None:
        """Write what waits; where that cannot be done it is dropped."""
        with self._lock:
            batch = dict(self._waiting)
        try:
            if batch:
                is_stored = self._store.set_many({key: to_text(entry) for key, entry in batch.items()})
                metrics.CACHE_STORED.add(len(batch) if is_stored else 0)
        finally:
            with self._lock:
                for key, entry in batch.items():
                    if self._waiting.get(key) is entry:
                        del self._waiting[key]

    def _wake_up(self) -> None:
        # Not alive either in the child of a fork.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
            self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(PERIOD_SECONDS)
            self._wake.clear()
            try:
                self.flush()
            except Exception:
                log.exception("answers could not be cached")
            if self._waiting:
                self._wake.set()
