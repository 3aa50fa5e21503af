"""Open files that somebody else has put there: regular ones within a size only, and never waiting for a writer. A leaf.

A FIFO waits for ever, a device such as /dev/zero never ends, and a sparse file of 100 GB costs its owner nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from app.host import machine

# Manifests, labels, reports, lists of samples: text that people or we have written.
TEXT_BYTES = 16 << 20
# Stored questions and answers hold a few small pictures.
GOLDEN_BYTES = 256 << 20
# The largest weights that torchvision publishes have 2.6 GB.
MOST_WEIGHTS_BYTES = 16 << 30
# While weights are loaded, they are in memory as the file, as tensors and as the network.
COPIES = 3
_CHUNK_BYTES = 1 << 20

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def most_weights() -> int:
    """The largest file of weights that is read here, in bytes: a third of the memory that this process may use."""
    return min(MOST_WEIGHTS_BYTES, machine.available_bytes() // COPIES)


def check(path: Path, max_bytes: int) -> int:
    """The size of a regular file in bytes. Raises OSError: there is none, or its ``strerror`` says what it is instead.

    Opens nothing, so that a FIFO, a device or a sparse file costs nothing.
    """
    return _size(path.stat(), path, max_bytes)


def open_regular(path: Path, max_bytes: int) -> BinaryIO:
    """A regular file of at most so many bytes, open for reading. Raises OSError as ``check`` does."""
    check(path, max_bytes)
    # Between the look and this somebody may have put a FIFO there: then opening must not wait, and we look again.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _size(os.fstat(descriptor), path, max_bytes)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read(path: Path, max_bytes: int) -> bytes:
    """What a regular file of at most so many bytes holds. Raises OSError as ``check`` does, also when it grows."""
    with open_regular(path, max_bytes) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise _too_large(path, len(content), max_bytes)
    return content


def sha256(path: Path, max_bytes: int) -> str:
    """SHA-256 of a regular file in hexadecimal, read piece by piece. Raises OSError as ``check`` does."""
    hasher, left = hashlib.sha256(), max_bytes
    with open_regular(path, max_bytes) as file:
        while chunk := file.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise _too_large(path, max_bytes - left, max_bytes)
            hasher.update(chunk)
    return hasher.hexdigest()


def reason(error: Exception) -> str:
    """Why a file cannot be read, in words and without an error number."""
    return str(getattr(error, "strerror", None) or error)


def _size(found: os.stat_result, path: Path, max_bytes: int) -> int:
    for is_kind, words in _KINDS:
        if is_kind(found.st_mode):
            raise OSError(errno.EINVAL, f"it is {words}, not a regular file", os.fspath(path))
    if found.st_size > max_bytes:
        raise _too_large(path, found.st_size, max_bytes)
    return found.st_size


def _too_large(path: Path, size: int, max_bytes: int) -> OSError:
    words = f"it has {size} bytes, and at most {max_bytes} are read here"
    return OSError(errno.EFBIG, words, os.fspath(path))
