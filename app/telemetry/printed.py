"""Lines of the log made of what is printed: a stream to put in the place of ``sys.stdout`` or ``sys.stderr``.

Apache's own streams make an error of each line. A whole text stream, as programs ask for its ``encoding``, write to its
``buffer`` or call ``reconfigure``. Standard library only: other teams' applications load this file in their own
environments.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any


class Lines(io.BufferedIOBase):
    """Gives each line that is written to ``tell``, those of each thread for themselves; blank ones are left out."""

    name = "<log>"

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._began = threading.local()

    def writable(self) -> bool:
        """Whether it can be written to."""
        return True

    def write(self, data: Any) -> int:
        """Tell what makes whole lines; the rest waits for its end."""
        *lines, self._began.rest = (getattr(self._began, "rest", b"") + bytes(data)).split(b"\n")
        for line in filter(bytes.strip, lines):
            self._tell(line.decode("utf-8", "backslashreplace").rstrip("\r"))
        return len(data)


def stream(tell: Callable[[str], None]) -> io.TextIOWrapper:
    """A stream of text. Thread-safe as far as ``tell`` is."""
    return io.TextIOWrapper(Lines(tell), "utf-8", "backslashreplace", newline="\n", write_through=True)
