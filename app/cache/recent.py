"""The answers that were asked for last, in memory: found also while the store is slow, and without asking it."""

from __future__ import annotations

import threading

from app.cache.entries import Entry

# A few hundred kilobytes; an answer with many boxes is left to the store.
MAX_ENTRIES = 512
MAX_ROWS = 64


class Recent:
    """Key → entry, the newest last. Thread-safe."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def put(self, key: str, entry: Entry) -> None:
        """Remember one, and forget the one that nobody has asked for the longest."""
        if len(entry.answer) > MAX_ROWS:
            return
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = entry
            if len(self._entries) > MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]

    def get(self, key: str) -> Entry | None:
        """One, which is then the newest."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self._entries[key] = entry
            return entry
