"""What lies where a file of a model should: a FIFO, a device, a folder, a socket, 100 GB of nothing."""

from __future__ import annotations

import os
import signal
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from app.cli.checks import disk
from app.cli.model import command
from app.errors import CaskError, GoldenCheckError, ManifestError, ModelLoadError
from app.host.permissions import own_account
from app.models import builds, manifests
from app.models.builds import Candidate, Report
from app.runtimes.build import samples
from app.runtimes.importing.add import NewModel, add_model
from app.runtimes.registry import Plan, load_model
from app.storage import files
from tests import fakes

LONGEST_SECONDS = 20
SPARSE_BYTES = 100 * 10**9


@pytest.fixture(autouse=True)
def must_end() -> Iterator[None]:
    """Ends a test that waits for a writer that never comes, or reads what never ends."""

    def give_up(*_: object) -> None:
        raise AssertionError(f"did not end within {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    # Its path may have 108 bytes at most.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, SPARSE_BYTES)


def linked_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "fifo": (fifo, "it is a FIFO"),
    "link-to-fifo": (linked_fifo, "it is a FIFO"),
    "/dev/zero": (zeros, "it is a device"),
    "folder": (folder, "it is a folder"),
    "socket": (unix_socket, "it is a socket"),
    "sparse": (sparse, f"it has {SPARSE_BYTES} bytes, and at most"),
}
each_odd = pytest.mark.parametrize(("make", "words"), ODD.values(), ids=ODD)


def put(path: Path, make: Callable[[Path], None]) -> Path:
    path.unlink(missing_ok=True)
    make(path)
    return path


@each_odd
@pytest.mark.parametrize("name", ["mine.pth", "mine.safetensors"])
def test_weights_to_add(tmp_path: Path, make: Callable[[Path], None], words: str, name: str) -> None:
    path = put(tmp_path / name, make)

    with pytest.raises(ModelLoadError, match=words) as caught:
        add_model(NewModel("narrow_resnet10", str(path), ("a",), "mine", "1"), tmp_path / "models")

    assert str(path) in caught.value.message
    assert not (tmp_path / "models" / "mine").exists()


@each_odd
def test_labels_to_add(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    path = put(tmp_path / "labels.txt", make)

    with pytest.raises(ModelLoadError, match=words):
        add_model(NewModel("narrow_resnet10", "random", path, "mine", "1"), tmp_path / "models")


@each_odd
def test_weights_in_the_store(small, make: Callable[[Path], None], words: str) -> None:
    manifest = small()
    put(manifest.weights_path, make)

    with pytest.raises(ModelLoadError, match=words):
        load_model(manifest)


@each_odd
def test_stored_answers(small, make: Callable[[Path], None], words: str) -> None:
    manifest = small()
    put(manifest.golden_path, make)

    with pytest.raises(GoldenCheckError, match=words):
        load_model(manifest).golden_check()


@each_odd
def test_manifest(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    put(fakes.write_model(tmp_path, "a") / manifests.FILE_NAME, make)

    with pytest.raises(ManifestError, match=words):
        manifests.read(tmp_path / "a" / "1")


@each_odd
def test_built_file(small, tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    manifest = small()
    place = builds.folder(tmp_path, manifest)
    place.mkdir(parents=True)
    put(place / "fp32.xml", make)
    chosen = Candidate("openvino", "fp32", "fp32.xml", "0" * 64, images_per_second=9.0, is_chosen=True)
    known = Report(manifest.key, manifest.digest, builds.processor(), builds.versions(), 1, (chosen,))
    builds.write(place, known)

    with pytest.raises(ModelLoadError, match=words):
        load_model(manifest, Plan(tmp_path, device="cpu"))


@each_odd
def test_report_of_a_build(small, tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    manifest = small()
    place = builds.folder(tmp_path, manifest)
    place.mkdir(parents=True)
    for name in (builds.REPORT_FILE, builds.PROGRESS_FILE):
        # The one link leads to the one pipe.
        if name == builds.REPORT_FILE or make is not linked_fifo:
            put(place / name, make)

    assert builds.standing(tmp_path, manifest).state == "none"


@each_odd
def test_sample_picture(small, make: Callable[[Path], None], words: str) -> None:
    manifest = small()
    samples.folder(manifest).mkdir()
    put(samples.folder(manifest) / "000.jpg", make)

    with pytest.raises(CaskError, match=words):
        samples.read(manifest)
    with pytest.raises(CaskError, match=words):
        list(samples.read_each(manifest))


@each_odd
def test_doctor_says_so(small, make: Callable[[Path], None], words: str) -> None:
    manifest = small()
    put(manifest.weights_path, make)
    settings = SimpleNamespace(models_dir=manifest.directory.parents[1], models=(), state_dir=Path("/nowhere"))
    here = SimpleNamespace(settings=settings, user=own_account())

    (finding,) = disk.models(here)

    assert (finding.verdict, words in finding.found) == ("fail", True), finding


def test_command_refuses_in_two_lines(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    arguments = ["--arch", "narrow_resnet10", "--weights", str(tmp_path / "w.pth"), "--name", "x", "--version", "1"]
    (tmp_path / "labels.txt").write_text("a")
    arguments += ["--labels", str(tmp_path / "labels.txt")]

    done = CliRunner().invoke(command, ["add", *arguments, "--store", str(tmp_path / "models")])

    assert done.exit_code == 1
    assert "it is a FIFO (named pipe), not a regular file" in done.stderr


def test_file_that_grows_while_it_is_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grows"
    path.write_bytes(b"1234")
    size = files._size

    def grow(found: os.stat_result, at: Path, most: int) -> int:
        path.write_bytes(bytes(1000))
        return size(found, at, most)

    monkeypatch.setattr(files, "_size", grow)

    for look in (files.read, files.sha256):
        path.write_bytes(b"1234")
        with pytest.raises(OSError, match="at most 10 are read here"):
            look(path, 10)


def test_fifo_that_takes_the_place_of_a_file_between_look_and_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "changes"
    path.write_bytes(b"1234")
    monkeypatch.setattr(files, "check", lambda at, most: put(at, fifo))

    with pytest.raises(OSError, match="it is a FIFO"):
        files.open_regular(path, 10)


def test_sizes_that_are_read_follow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.machine, "available_bytes", lambda: 3_000_000_000)
    assert files.most_weights() == 1_000_000_000
    monkeypatch.setattr(files.machine, "available_bytes", lambda: 2**50)
    assert files.most_weights() == files.MOST_WEIGHTS_BYTES


def test_refusing_costs_no_memory(small) -> None:
    manifest = small()
    put(manifest.weights_path, sparse)
    tracemalloc.start()

    with pytest.raises(ModelLoadError):
        load_model(replace(manifest, golden=""))

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000
