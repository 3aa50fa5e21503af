"""Archives of strangers: their images are taken, their tricks are not."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from app.errors import ArchiveError, CaskError, ImageTooLargeError, RequestTooLargeError, TooManyImagesError
from app.jobs import archives
from app.jobs.disk_store import DiskStore

Files = dict[str, bytes]
BEFORE = {"site/a.jpg": b"first", "site/b.png": b"second"}
HIDDEN = {"__MACOSX/._a.jpg": b"x", ".DS_Store": b"x", "site/Thumbs.db": b"x"}


def zipped(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.mkdir("site")
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: Files, mode: str = "w", tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tar_format) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("site")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def gzipped(files: Files) -> bytes:
    return tarred(files, "w:gz")


def gnu(files: Files) -> bytes:
    return tarred(files, tar_format=tarfile.GNU_FORMAT)


PACKERS = [zipped, tarred, gzipped, gnu]
Packer = Callable[[Files], bytes]


def taken(disk_store: DiskStore, archive: bytes) -> Files:
    with disk_store.packing() as pack:
        archives.fill(pack, io.BytesIO(archive))
        pack.close()
        data = pack.path.read_bytes()
        return {each.name: data[each.start : each.start + each.size_bytes] for each in pack.entries}


def refusal(disk_store: DiskStore, archive: bytes, kind: type[CaskError] = ArchiveError) -> str:
    with pytest.raises(kind) as caught:
        taken(disk_store, archive)
    assert list((disk_store.folder / "incoming").iterdir()) == []
    return caught.value.message


@pytest.mark.parametrize("pack", PACKERS)
def test_files_are_taken_in_order_and_hidden_ones_are_not(disk_store: DiskStore, pack: Packer) -> None:
    assert list(taken(disk_store, pack({**BEFORE, **HIDDEN})).items()) == list(BEFORE.items())


@pytest.mark.parametrize("pack", PACKERS)
def test_long_names_are_taken(disk_store: DiskStore, pack: Packer) -> None:
    assert list(taken(disk_store, pack({"f/" * 90 + "ü.jpg": b"x"})).values()) == [b"x"]


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "..\\a.jpg", "C:\\a.jpg"])
@pytest.mark.parametrize("pack", PACKERS)
def test_name_that_leads_out_is_refused(disk_store: DiskStore, pack: Packer, name: str) -> None:
    assert "leads out of the archive" in refusal(disk_store, pack({name: b"x"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(disk_store: DiskStore, kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)

    assert "link or a device" in refusal(disk_store, buffer.getvalue())


def test_link_in_a_zip_is_refused(disk_store: DiskStore) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")

    assert "link or a device" in refusal(disk_store, buffer.getvalue())


def test_encrypted_zip_is_refused(disk_store: DiskStore) -> None:
    data = bytearray(zipped({"a.jpg": b"x"}))
    # The flags stand six bytes into the local head and eight into the row of the table of contents.
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rfind(mark) + offset] |= 1

    assert "encrypted" in refusal(disk_store, bytes(data))


@pytest.mark.parametrize("pack", PACKERS)
def test_too_many_files_are_refused(disk_store: DiskStore, pack: Packer) -> None:
    refusal(disk_store, pack({f"{number}.jpg": b"x" for number in range(6)}), TooManyImagesError)


@pytest.mark.parametrize("pack", PACKERS)
def test_file_that_unpacks_to_too_much_is_refused(disk_store: DiskStore, pack: Packer) -> None:
    refusal(disk_store, pack({"a.jpg": b"\0" * 60_000}), ImageTooLargeError)


@pytest.mark.parametrize("pack", PACKERS)
def test_files_that_unpack_to_too_much_together_are_refused(disk_store: DiskStore, pack: Packer) -> None:
    refusal(disk_store, pack({f"{number}.jpg": b"\0" * 45_000 for number in range(3)}), RequestTooLargeError)


def test_zip_that_lies_about_a_size_is_refused(disk_store: DiskStore) -> None:
    data = bytearray(zipped({"a.jpg": b"\0" * 60_000}))
    # The size that the table of contents claims.
    at = data.rfind(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<L", 10)

    # Python reads as many bytes as are claimed and then compares the checksum.
    assert "cannot be read" in refusal(disk_store, bytes(data))


def test_zip_with_an_endless_table_of_contents_is_refused_before_it_is_read(
    disk_store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = many(100)
    monkeypatch.setattr(archives, "MORE_ENTRIES", 0)
    monkeypatch.setattr(archives.zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))

    assert "table of contents" in refusal(disk_store, archive)


def many(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number}.jpg", b"x")
    return buffer.getvalue()


def test_tar_with_endless_folders_is_refused(disk_store: DiskStore) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(archives.MORE_ENTRIES + 10):
            info = tarfile.TarInfo(f"{number}")
            info.type = tarfile.DIRTYPE
            archive.addfile(info)

    assert "entries" in refusal(disk_store, buffer.getvalue())


def test_tar_whose_names_are_a_bomb_is_refused_before_they_are_read(disk_store: DiskStore) -> None:
    info = tarfile.TarInfo("bomb")
    info.type, info.size = tarfile.XHDTYPE, 10**9
    head = info.tobuf(tarfile.USTAR_FORMAT)

    assert "stands before an entry" in refusal(disk_store, gzip.compress(head + b"\0" * 10**6))


def test_gzip_bomb_of_a_hidden_file_is_refused(disk_store: DiskStore) -> None:
    assert "more bytes than a job may have" in refusal(disk_store, gzipped({".hidden": b"\0" * 5_000_000}))


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("cut", [0.3, 0.6, 0.85])
def test_archive_that_was_cut_off_is_refused(disk_store: DiskStore, pack: Packer, cut: float) -> None:
    whole = pack({f"{number}.jpg": bytes(range(256)) * 100 for number in range(3)})

    refusal(disk_store, whole[: int(len(whole) * cut)], CaskError)


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive at all", b"\x1f\x8bxx", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_archive_is_refused(disk_store: DiskStore, data: bytes) -> None:
    refusal(disk_store, data)


@pytest.mark.parametrize("pack", PACKERS)
def test_empty_archive_is_refused(disk_store: DiskStore, pack: Packer) -> None:
    assert "holds no file" in refusal(disk_store, pack({}))
