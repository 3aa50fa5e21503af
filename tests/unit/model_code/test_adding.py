"""A folder with a model.py is taken into the store whole, or refused with what to do."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ManifestError, ModelLoadError
from app.model_code import adding, folder, served
from app.model_code.adding import NewCode
from app.models import manifests
from tests.unit.model_code import folders


def test_added_model_is_what_was_promised_and_loads(tmp_path: Path) -> None:
    source, store = folders.tickets(tmp_path / "source"), tmp_path / "store"
    (source / "__pycache__").mkdir()
    manifest = adding.add(NewCode(source, "tickets", "1"), store)

    assert manifest.task == manifests.CODE
    assert manifest.description == "Sorts a support ticket into a queue."
    assert manifest.serve.max_batch_size == 16
    assert set(manifest.signature["inputs"]) == {"text"}
    assert manifest.sha256 == folder.digest(source)
    assert sorted(path.name for path in manifest.directory.iterdir()) == ["manifest.toml", "model.py", "queues.txt"]
    model = served.load(manifest, is_allowed=True, threads=1)
    model.close()


def test_store_may_be_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.tickets(tmp_path / "source")
    monkeypatch.chdir(tmp_path)

    manifest = adding.add(NewCode(Path("source"), "tickets", "1"), Path("store"))

    served.load(manifest, is_allowed=True, threads=1).close()


def _pickle(source: Path) -> None:
    (source / "weights.bin").write_bytes(pickle.dumps([1]))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no model.py": (lambda source: (source / "model.py").unlink(), "holds no model.py"),
    "a pickle": (_pickle, "holds pickles, which run code when they are loaded: weights.bin imports nothing"),
    "a link": (lambda source: (source / "link").symlink_to("/etc/passwd"), "link is no regular file"),
    "a syntax error": (lambda source: (source / "model.py").write_text("class ("), "line 1: invalid syntax"),
    "writes into its folder": (
        lambda source: (source / "model.py").write_text(
            "from cask import Model\nclass Mine(Model):\n"
            "    def load(self, folder): (folder / 'words.cache').write_text('a')\n"
            "    def predict(self, x: list[int]) -> list[int]: return x\n"
        ),
        "wrote words.cache into its own folder",
    ),
    "an exit": (lambda source: (source / "model.py").write_text("import os; os._exit(3)"), "status 3"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_folder_that_cannot_be_served_is_refused_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    source, store = folders.tickets(tmp_path / "source"), tmp_path / "store"
    spoil, said = REFUSED[what]
    spoil(source)

    with pytest.raises(ModelLoadError) as raised:
        adding.add(NewCode(source, "tickets", "1"), store)

    assert said in str(raised.value.message)
    assert str(raised.value.hint)
    assert not list(store.glob("*")) if store.exists() else True


def test_pickle_is_taken_from_whom_one_trusts(tmp_path: Path) -> None:
    source = folders.tickets(tmp_path / "source")
    _pickle(source)

    assert adding.add(NewCode(source, "tickets", "1", is_trusted=True), tmp_path / "store").key == "tickets@1"


def test_version_is_replaced_only_on_demand(tmp_path: Path) -> None:
    source, store = folders.tickets(tmp_path / "source"), tmp_path / "store"
    adding.add(NewCode(source, "tickets", "1"), store)

    with pytest.raises(ManifestError, match="exists already"):
        adding.add(NewCode(source, "tickets", "1"), store)
    assert adding.add(NewCode(source, "tickets", "1"), store, force=True).key == "tickets@1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('task = "code"', 'task = "cod"', "labels"),
        ("timeout_seconds = 30.0", "timeout_seconds = 0", "code.timeout_seconds is 0"),
        ("memory_mb = 4096", 'memory_mb = "a"', "code.memory_mb is 'a'"),
        ('\\"api\\": 1', '\\"api\\": 2', "code.signature is not what this release writes"),
        ("memory_mb", "memory", "memory"),
    ],
)
def test_manifest_that_says_something_impossible_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    directory = adding.add(NewCode(folders.tickets(tmp_path / "source"), "tickets", "1"), tmp_path / "store").directory
    path = directory / manifests.FILE_NAME
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(ManifestError, match=said):
        manifests.read(directory)


def test_changed_file_or_no_permission_keeps_it_from_loading(tmp_path: Path) -> None:
    manifest = adding.add(NewCode(folders.tickets(tmp_path / "source"), "tickets", "1"), tmp_path / "store")
    with pytest.raises(ModelLoadError, match="MODEL_CODE is off"):
        served.load(manifest, is_allowed=False, threads=1)
    (manifest.directory / "queues.txt").write_text("other")
    with pytest.raises(ModelLoadError, match="was altered"):
        served.load(manifest, is_allowed=True, threads=1)
