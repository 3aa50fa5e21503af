"""Keep the lines of standard input in a file of bounded size, and pass them on: what `make serve` does with LOG_FILE.

``python apache/keep_log.py FILE BYTES FILES``: FILE is always the newest, FILE.1 the one before it. Who writes to us
must never wait or fail for our sake: with a full disk lines are passed on and not kept.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from pathlib import Path

READ_BYTES = 1 << 16


class KeptLog:
    """A file that is put aside when the next lines would make it too large."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._file: int | None = None
        self._size = 0

    def write(self, lines: bytes) -> None:
        """Keep whole lines. Raises OSError where they cannot be kept."""
        if self._file is not None and not self._is_named():
            # Somebody else rotates: the lines go to the file of that name.
            os.close(self._file)
            self._file = None
        if self._file is None:
            self._open()
        if self._size and self._size + len(lines) > self._max_bytes:
            self._put_aside()
        assert self._file is not None
        self._size += os.write(self._file, lines)

    def _is_named(self) -> bool:
        """Whether our file still has the name; how large it is now, as somebody may have cut it."""
        assert self._file is not None
        ours = os.fstat(self._file)
        self._size = ours.st_size
        try:
            named = self._path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._opened(self._path)
        self._size = os.fstat(self._file).st_size

    def _opened(self, path: Path, more_flags: int = 0) -> int:
        # No link: others than us may write in that folder.
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | more_flags, 0o640)

    def _put_aside(self) -> None:
        """Begin a new file. The newest lines are at every moment under the one name that people read."""
        assert self._file is not None
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.unlink(missing_ok=True)
        file = self._opened(fresh, os.O_EXCL)
        try:
            names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._files))]
            for newer, older in reversed(list(itertools.pairwise(names))):
                self._name_also(newer, older)
            fresh.replace(self._path)
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._size = file, 0

    def _name_also(self, newer: Path, older: Path) -> None:
        """``older`` now names the file of ``newer``. No name that somebody reads is missing for a moment."""
        link = self._path.with_name(f"{self._path.name}.old")
        link.unlink(missing_ok=True)
        try:
            link.hardlink_to(newer)
        except FileNotFoundError:
            # Not there yet, or removed by somebody.
            return
        except OSError:
            # A file system without hard links.
            newer.rename(older)
        else:
            link.replace(older)
            # Where both names were one file already, replace() leaves the link.
            link.unlink(missing_ok=True)


def main() -> int:
    """Until the last one who writes to us has ended."""
    path, max_bytes, files = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Ctrl-C and a stop are meant for the server; its last lines are to be kept too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
        signal.signal(number, signal.SIG_IGN)
    log, pending, is_told = KeptLog(path, max_bytes, files), b"", False
    while read := os.read(0, READ_BYTES):
        with contextlib.suppress(OSError):
            os.write(1, read)
        pending += read
        whole = pending.rfind(b"\n") + 1 or (len(pending) if len(pending) >= READ_BYTES else 0)
        if not whole:
            continue
        try:
            log.write(pending[:whole])
            is_told = False
        except OSError as error:
            if not is_told:
                print(f"{path} cannot be written: {error.strerror}. Lines are not kept there.", file=sys.stderr)
                is_told = True
        pending = pending[whole:]
    if pending:
        with contextlib.suppress(OSError):
            log.write(pending)
    return 0


if __name__ == "__main__":
    sys.exit(main())
