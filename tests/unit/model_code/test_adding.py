"""A folder with a model.py is taken into the store whole, or refused with what to do."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import GoldenCheckError, ManifestError, ModelLoadError
from app.model_code import adding, folder, served
from app.model_code.adding import NewCode
from app.models import manifests
from app.models.manifests import CodeSpec
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


ECHO = "from cask import Model\nclass Mine(Model):\n    def predict(self, x: list[int]) -> list[int]:\n"
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
    "a polite exit": (lambda source: _code(source, "raise SystemExit(3)"), "model.py, line 1: SystemExit: 3"),
    "an interrupt": (lambda source: _code(source, "raise KeyboardInterrupt"), "model.py, line 1: KeyboardInterrupt"),
    "a pipe": (lambda source: os.mkfifo(source / "pipe"), "pipe is no regular file"),
    "a pipe as model.py": (lambda source: ((source / "model.py").unlink(), os.mkfifo(source / "model.py")), "holds no"),
    "a socket": (lambda source: _socket(source / "socket"), "socket is no regular file"),
    "a linked folder": (lambda source: (source / "more").symlink_to("/etc"), "more is no regular file"),
    "more than fits": (lambda source: os.truncate(_touched(source / "big"), 2**43), "GB are free where the store lies"),
    "a name in bytes": (
        lambda source: _touched(Path(os.fsdecode(bytes(source) + b"/\xff"))),
        "whose name is '\\udcff'",
    ),
    "10 GB": (lambda source: _code(source, "x = bytearray(10_000_000_000)"), "model.py, line 1: MemoryError"),
    "a hang": (
        lambda source: _code(source, "import time\ntime.sleep(600)"),
        "model.py, line 2: it did not load within 8",
    ),
    "a crash in C": (
        lambda source: _code(source, "import ctypes\nctypes.string_at(0)"),
        "model.py, line 2: its process ended while it loaded, status -11 (Segmentation fault)",
    ),
    "requirements that are none": (
        lambda source: (source / "requirements.txt").write_text("torch ==== 1\n"),
        "requirements.txt cannot be installed",
    ),
    "requirements that are not there": (
        lambda source: (source / "requirements.txt").write_text("--no-index\nnot-there-at-all==1\n"),
        "No matching distribution found for not-there-at-all==1",
    ),
    "a crash at an example": (
        lambda source: _code(source, f"{ECHO}        import ctypes; ctypes.string_at(0)\n", example='{"x": 1}'),
        "model.py, line 4: examples/01.json: The model tickets@1 gave no answer",
    ),
    "an error at an example": (
        lambda source: _code(source, f"{ECHO}        return [1 // each for each in x]\n", example='{"x": 0}'),
        "examples/01.json: predict failed: model.py, line 4: ZeroDivisionError",
    ),
}
# What is loud or odd, and can be served.
ENDLESS = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
TAKEN = {
    "prints": f"print('hello', flush=True)\n{ECHO}        print(x); return x\n",
    "a thread that never ends": f"{ENDLESS}{ECHO}        return x\n",
    "options of a command": f"import argparse\nargparse.ArgumentParser().parse_args()\n{ECHO}        return x\n",
    "a copy of itself": f"import os\nos.fork()\n{ECHO}        os.fork(); return x\n",
    "a child": f"import subprocess\nsubprocess.Popen(['sleep', '600'])\n{ECHO}        return x\n",
}


def _code(source: Path, code: str, example: str = "") -> None:
    (source / "model.py").write_text(code)
    if example:
        (source / "examples").mkdir()
        (source / "examples" / "01.json").write_text(example)


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        # A path of a test may be longer than a socket's may.
        sock.bind(f"/proc/self/fd/{os.open(path.parent, os.O_PATH)}/{path.name}")


@pytest.mark.parametrize("what", REFUSED)
def test_folder_that_cannot_be_served_is_refused_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    source, store = folders.tickets(tmp_path / "source"), tmp_path / "store"
    spoil, said = REFUSED[what]
    spoil(source)

    # A busy machine takes seconds to start a process; only what hangs is to meet the limit.
    limits = CodeSpec(load_seconds=8.0 if what == "a hang" else 60.0, memory_mb=2000)
    with pytest.raises((ModelLoadError, GoldenCheckError)) as raised:
        adding.add(NewCode(source, "tickets", "1", limits=limits), store)

    assert said in str(raised.value.message)
    assert str(raised.value.hint)
    assert not list(store.glob("*")) if store.exists() else True


@pytest.mark.parametrize("what", TAKEN)
def test_folder_whose_code_is_odd_is_taken_and_answers(tmp_path: Path, what: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    _code(source, TAKEN[what], example='{"items": [{"x": 1}, {"x": 2}]}')
    manifest = adding.add(NewCode(source, "odd", "1"), tmp_path / "store")
    model = served.load(manifest, is_allowed=True, threads=1)
    try:
        answers = [model.running.ask({}, [([number], b"")])[0]["answer"] for number in range(5)]
    finally:
        model.close()

    # A copy that os.fork() made does not answer besides.
    assert answers == [b"0", b"1", b"2", b"3", b"4"]


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


LIMITED = """
    import resource
    from cask import Model

    class Base(Model):
        memory_mb = 900

    class Mine(Base):
        timeout_seconds = 7

        def predict(self, text: list[str]) -> list[int]:
            return [resource.getrlimit(resource.RLIMIT_DATA)[1] // 1024 // 1024 for _ in text]
"""


@pytest.mark.parametrize(
    ("of_class", "wanted"),
    [(("timeout_seconds", "memory_mb"), (7, 900)), (("memory_mb",), (30, 900)), ((), (30, 4096))],
)
def test_limits_of_the_class_are_taken_where_none_was_given(
    tmp_path: Path, of_class: tuple[str, ...], wanted: tuple[float, int]
) -> None:
    source = folders.write(tmp_path / "source", LIMITED)
    new = NewCode(source, "mine", "1", of_class=frozenset(of_class))

    manifest = adding.add(new, tmp_path / "store")

    assert manifest.code is not None
    assert (manifest.code.timeout_seconds, manifest.code.memory_mb) == wanted
    model = served.load(manifest, is_allowed=True, threads=1)
    try:
        assert model.running.ask({}, [(["x"], b"")])[0]["answer"] == str(wanted[1]).encode()
    finally:
        model.close()


@pytest.mark.parametrize(
    "declared", ["timeout_seconds = '60'", "timeout_seconds = 0", "memory_mb = 1.5", "memory_mb = True"]
)
def test_limit_of_the_class_that_is_none_is_refused(tmp_path: Path, declared: str) -> None:
    source = folders.write(tmp_path / "source", LIMITED.replace("timeout_seconds = 7", declared))

    name, _, value = declared.partition(" = ")
    with pytest.raises(ModelLoadError, match=rf"Mine\.{name} is {value}; write a "):
        adding.add(NewCode(source, "mine", "1"), tmp_path / "store")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-no-deps.txt", "requirements.lock"])
def test_folder_with_the_name_of_a_list_is_refused(tmp_path: Path, name: str) -> None:
    """It was left out of the copy without a word, and the packages in it too."""
    source = folders.tickets(tmp_path / "source")
    (source / name).mkdir()

    with pytest.raises(ModelLoadError, match=rf"{name} is no file; expected a text with one package a line"):
        adding.add(NewCode(source, "tickets", "1"), tmp_path / "store")
