"""A pair of files is compared with what serves: a right one is put in force, a wrong one is refused."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app import config
from app.host import certificates
from app.supervision.certificate_renewals import CertificateRenewals
from tests.certificates import Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "authority").mkdir()
    return Authority(tmp_path / "authority")


@pytest.fixture
def used(tmp_path: Path, authority: Authority) -> Pair:
    """The files that are watched: links by way of a folder that is a link, as Kubernetes mounts secrets."""
    first = tmp_path / "..2026_1"
    first.mkdir()
    made = authority.sign("localhost")
    shutil.copy(made.certificate, first / "tls.crt")
    shutil.copy(made.key, first / "tls.key")
    (tmp_path / "..data").symlink_to(first.name)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    return Pair(tmp_path / "tls.crt", tmp_path / "tls.key")


@pytest.fixture
def server_root(tmp_path: Path, used: Pair) -> Path:
    folder = tmp_path / "state" / "run" / "httpd"
    folder.mkdir(parents=True)
    certificates.note(certificates.read(used.certificate, used.key), folder)
    return folder


@pytest.fixture
def renewals(tmp_path: Path, used: Pair, server_root: Path) -> CertificateRenewals:
    given = {"HTTPS_PORT": "1", "TLS_CERTIFICATE": str(used.certificate), "TLS_KEY": str(used.key)}
    return CertificateRenewals(config.resolve({"ENV": "test", "STATE_DIR": str(tmp_path / "state"), **given}))


def in_force(server_root: Path) -> bytes:
    link = server_root / certificates.LINK
    return link.read_bytes() if link.exists() else b""


def put(pair: Pair, used: Pair) -> None:
    for new, old in ((pair.certificate, used.certificate), (pair.key, used.key)):
        shutil.copy(new, old.with_suffix(".new"))
        old.with_suffix(".new").rename(old)


def test_nothing_changes_while_the_files_stay(renewals: CertificateRenewals, server_root: Path) -> None:
    renewals.look()

    assert in_force(server_root) == b""
    assert renewals.validity is not None
    assert renewals.validity.begins <= time.time() < renewals.validity.ends
    assert not renewals.is_refused


def test_a_renewed_pair_serves_once_both_files_are_there(
    renewals: CertificateRenewals, server_root: Path, used: Pair, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    new = authority.sign("localhost")
    used.certificate.unlink()
    shutil.copy(new.certificate, used.certificate)
    renewals.look()
    assert in_force(server_root) == b""

    used.key.unlink()
    shutil.copy(new.key, used.key)
    renewals.look()
    renewals.look()

    assert in_force(server_root) == certificates.read(new.certificate, new.key)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the renewed certificate" in caplog.text


def test_a_moved_folder_of_kubernetes_is_seen(
    renewals: CertificateRenewals, server_root: Path, used: Pair, authority: Authority
) -> None:
    folder, new = used.certificate.parent, authority.sign("localhost")
    (folder / "..2026_2").mkdir()
    shutil.copy(new.certificate, folder / "..2026_2" / "tls.crt")
    shutil.copy(new.key, folder / "..2026_2" / "tls.key")
    (folder / "..data_tmp").symlink_to("..2026_2")
    (folder / "..data_tmp").rename(folder / "..data")

    renewals.look()

    assert in_force(server_root) == certificates.read(new.certificate, new.key)


def test_a_changed_chain_behind_the_same_certificate_serves(
    renewals: CertificateRenewals, server_root: Path, used: Pair, authority: Authority
) -> None:
    whole = used.certificate.read_bytes() + authority.certificate.read_bytes()
    used.certificate.unlink()
    used.certificate.write_bytes(whole)

    renewals.look()

    assert in_force(server_root).startswith(whole)


def of_another(used: Pair, authority: Authority) -> None:
    put(Pair(used.certificate, authority.sign("localhost").key), used)


def no_certificate(used: Pair, _: Authority) -> None:
    used.certificate.unlink()
    used.certificate.write_text("<html>404</html>")


def gone(used: Pair, _: Authority) -> None:
    used.key.unlink()


def half_written(used: Pair, _: Authority) -> None:
    text = used.certificate.read_bytes()
    used.certificate.unlink()
    used.certificate.write_bytes(text[: len(text) // 2])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_another, "is not the key of"),
        (no_certificate, "is no PEM file that can be used"),
        (gone, "cannot be read (No such file or directory)"),
        (half_written, "is no PEM file that can be used"),
    ],
)
def test_what_cannot_serve_is_refused_in_one_line_and_mended_later(
    renewals: CertificateRenewals,
    server_root: Path,
    used: Pair,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Pair, Authority], None],
    words: str,
) -> None:
    spoil(used, authority)
    for _ in range(4):
        renewals.look()

    assert in_force(server_root) == b""
    assert renewals.is_refused
    (line,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert words in line.getMessage()

    new = authority.sign("localhost")
    put(new, used)
    renewals.look()

    assert in_force(server_root) == certificates.read(new.certificate, new.key)
    assert not renewals.is_refused
