"""Who sends so much that the engine cannot take it: counted by what was read in vain, and forgotten within seconds.

Before its body is read nobody knows whether a request will need the engine: its answer may be kept. So bodies are read
as long as few of them are read in vain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# Within that time half of everything is forgotten.
HALF_LIFE_SECONDS = 1.0
# So many requests of one address were read and then refused, within about a second: a crowd.
VAIN_OF_ONE = 16.0
# The same for all addresses together, each of which may send a few.
VAIN_OF_ALL = 64.0
MAX_CALLERS = 1024


@dataclass
class _Tally:
    """Requests that were read in ``vain``, and those that were answered without the engine: ``quick``."""

    vain: float = 0.0
    quick: float = 0.0
    moment: float = 0.0

    def fade(self, now: float) -> None:
        share = 0.5 ** ((now - self.moment) / HALF_LIFE_SECONDS)
        self.vain, self.quick, self.moment = self.vain * share, self.quick * share, now


@dataclass
class Crowds:
    """Not thread-safe: its owner holds a lock."""

    clock: Callable[[], float] = time.monotonic
    _all: _Tally = field(default_factory=_Tally)
    _callers: dict[str, _Tally] = field(default_factory=dict)

    def note_vain(self, caller: str) -> None:
        """A request was refused after its body was read."""
        for tally in (self._all, self._of(caller)):
            tally.fade(self.clock())
            tally.vain += 1

    def note_quick(self, caller: str) -> None:
        """A request was answered without the engine. Costs nothing for callers whose bodies were all used."""
        tally = self._callers.get(caller)
        if tally is not None or self._all.vain:
            tally = tally or self._of(caller)
            tally.fade(self.clock())
            tally.quick += 1

    def is_one(self, caller: str) -> bool:
        """Whether the next request of this caller would most probably be read in vain, were the engine too busy."""
        if not self._all.vain:
            return False
        now, tally = self.clock(), self._callers.get(caller, _Tally())
        self._all.fade(now)
        tally.fade(now)
        is_quick = tally.quick >= tally.vain and tally.quick >= 1
        return not is_quick and (tally.vain >= VAIN_OF_ONE or self._all.vain >= VAIN_OF_ALL)

    def _of(self, caller: str) -> _Tally:
        if caller not in self._callers and len(self._callers) >= MAX_CALLERS:
            self._callers.clear()
        return self._callers.setdefault(caller, _Tally(moment=self.clock()))
