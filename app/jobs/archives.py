"""Images out of zip and tar archives that strangers sent: read through once, never unpacked to their names.

What an archive says of itself is not believed: each bound is held while reading. ``Pack`` holds those of the images.
"""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import BinaryIO, Self

from app.errors import ArchiveError
from app.jobs.image_packs import Pack

MEDIA_TYPES = {
    "application/zip": "zip",
    "application/x-zip-compressed": "zip",
    "application/x-tar": "tar",
    "application/gzip": "tar",
    "application/x-gzip": "tar",
    "application/x-gtar": "tar",
}
# Folders, notes of a file manager and the like may stand beside the images.
MORE_ENTRIES = 1000
# A name in an archive is rarely longer; tools write long ones into blocks of their own.
MAX_NAME_BYTES = 4096
# One row of zip's table of contents without its name (APPNOTE 4.3.12).
ZIP_ROW_BYTES = 46
END_OF_ZIP = struct.Struct("<4s4H2LH")
END_OF_ZIP_MARK = b"PK\x05\x06"
ZIP64_MARK = b"PK\x06\x07"
ZIP64_BYTES = 20
GZIP_MARK = b"\x1f\x8b"
ENCRYPTED = 0x1
# What tar's headers may take: a kilobyte an entry is twice what most need.
TAR_HEAD_BYTES = 1024
PLAIN_TYPES = (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)
READER_ERRORS = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, struct.error),
    *(NotImplementedError, RuntimeError, UnicodeError, ValueError, LookupError),
)


def fill(pack: Pack, archive: BinaryIO) -> None:
    """Put every image of an archive into a pack, in the archive's order.

    Raises ArchiveError, and what ``Pack.add`` raises.
    """
    try:
        head = archive.read(4)
        archive.seek(0)
        if head.startswith(b"PK"):
            _fill_from_zip(pack, archive)
        else:
            _fill_from_tar(pack, archive, is_gzip=head.startswith(GZIP_MARK))
    except READER_ERRORS as error:
        raise ArchiveError(
            "The archive cannot be read: %(reason)s.",
            hint="Send a zip, tar or tar.gz file of images; pack it again if it is damaged.",
            reason=error or type(error).__name__,
        ) from None
    if not pack.entries:
        raise ArchiveError("The archive holds no file.", hint="Put the images into it.")


def _fill_from_zip(pack: Pack, archive: BinaryIO) -> None:
    _check_contents(pack, archive)
    with zipfile.ZipFile(archive) as reader:
        for info in reader.infolist():
            if info.is_dir() or _is_hidden(info.filename):
                continue
            _check_name(info.filename)
            if info.flag_bits & ENCRYPTED:
                raise ArchiveError(
                    "%(name)s is encrypted.", hint="Pack it without a password.", name=ascii(info.filename[:80])
                )
            # Unix's kind of file stands in the upper half, where it was packed there.
            kind = info.external_attr >> 28
            if kind not in (0, 0o10):
                raise ArchiveError(
                    "%(name)s is a link or a device.", hint="Pack files only.", name=ascii(info.filename[:80])
                )
            with reader.open(info) as file:
                pack.add(info.filename, file)  # type: ignore[arg-type]


def _check_contents(pack: Pack, archive: BinaryIO) -> None:
    """The table of contents is read whole by Python, so its size is looked at first. Raises ArchiveError."""
    size = archive.seek(0, 2)
    archive.seek(max(0, size - END_OF_ZIP.size - ZIP64_BYTES - 2**16))
    tail = archive.read()
    archive.seek(0)
    at = tail.rfind(END_OF_ZIP_MARK)
    if at < 0 or len(tail) - at < END_OF_ZIP.size:
        raise ArchiveError("The zip archive has no end.", hint="It was cut off on its way; send it again.")
    contents_bytes = END_OF_ZIP.unpack_from(tail, at)[5]
    most_entries = pack.limits.max_images + MORE_ENTRIES
    if ZIP64_MARK in tail[max(0, at - ZIP64_BYTES) : at] or contents_bytes > most_entries * (ZIP_ROW_BYTES + 512):
        raise ArchiveError(
            "The zip archive's table of contents is longer than %(most)s files need.",
            hint="Make several jobs of it; the operator of this service sets the limit.",
            most=most_entries,
        )


def _fill_from_tar(pack: Pack, archive: BinaryIO, *, is_gzip: bool) -> None:
    most_bytes = pack.limits.max_bytes + (pack.limits.max_images + MORE_ENTRIES) * TAR_HEAD_BYTES
    plain = _Bounded(gzip.GzipFile(fileobj=archive, mode="rb") if is_gzip else archive, most_bytes)
    entries = 0
    with tarfile.open(fileobj=plain, mode="r|", tarinfo=_TarInfo) as reader:  # type: ignore[call-overload]
        for info in reader:
            # Python remembers each entry; here nobody asks for them again.
            reader.members.clear()
            entries += 1
            if entries > pack.limits.max_images + MORE_ENTRIES:
                raise ArchiveError(
                    "The archive has more than %(most)s entries.",
                    hint="Make several jobs of it; the operator of this service sets the limit.",
                    most=entries - 1,
                )
            if info.isdir() or _is_hidden(info.name):
                continue
            _check_name(info.name)
            if not info.isreg() or info.issparse():
                raise ArchiveError(
                    "%(name)s is a link or a device.", hint="Pack files only.", name=ascii(info.name[:80])
                )
            pack.add(info.name, reader.extractfile(info))


class _TarInfo(tarfile.TarInfo):
    """One entry of a tar archive. Python reads what stands before an entry (names, times) whole: it must be short."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        is_plain = info.type in PLAIN_TYPES
        if not is_plain and info.size > MAX_NAME_BYTES:
            raise tarfile.ReadError(f"what stands before an entry has {info.size} bytes")
        return info


class _Bounded:
    """A stream that ends with an error where more comes out than an archive of this size may hold."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, most_bytes: int) -> None:
        self._stream = stream
        self._left = most_bytes

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError(
                "The archive unpacks to more bytes than a job may have.",
                hint="Make several jobs of it; the operator of this service sets the limit.",
            )
        return data


def _is_hidden(name: str) -> bool:
    """Notes that systems leave beside files: ``.DS_Store``, ``__MACOSX/._x``, ``Thumbs.db``."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part.startswith(".") and part not in (".", "..") for part in parts) or bool(
        {"__MACOSX", "Thumbs.db", "desktop.ini"} & set(parts)
    )


def _check_name(name: str) -> None:
    """Names are shown and never written to; but such an archive was not made for us. Raises ArchiveError."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or name[1:2] == ":":
        raise ArchiveError(
            "The name %(name)s leads out of the archive.",
            hint="Pack the images from within their folder.",
            name=ascii(name[:80]),
        )
