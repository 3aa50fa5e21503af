"""The file of kept answers: shared, bounded, and replaced when it is damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.cache.disk import DiskStore
from app.config import ROOT
from app.errors import StateUnusableError

BODY = "x" * 500


def size_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("answers.sqlite3"))


def test_what_was_kept_is_found_and_the_rest_is_not(disk: DiskStore) -> None:
    disk.set_many({"a": "1", "b": "2"})

    assert disk.get_many("b", "c", "a") == ["2", None, "1"]
    assert disk.get_many("a")[0] == "1"


def test_another_process_finds_it(disk: DiskStore, tmp_path: Path) -> None:
    disk.set_many({"a": "kept here"})
    code = (
        "import sys; from pathlib import Path; from app.cache.disk import DiskStore;"
        "print(DiskStore(Path(sys.argv[1]), 1 << 20, 60).get_many('a')[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "answers.sqlite3")], cwd=ROOT, capture_output=True, text=True
    )

    assert done.stdout.strip() == "kept here", done.stderr


def test_what_is_too_old_is_not_found_and_goes_with_the_next_writing(disk: DiskStore) -> None:
    disk.set_many({"old": "1"}, timeout=-1)
    disk.set_many({"new": "2"})

    assert disk.get_many("old", "new") == [None, "2"]
    with disk._database.reading() as connection:
        assert [row["key"] for row in connection.execute("SELECT key FROM answers")] == ["new"]


def test_file_stays_within_its_bound_and_the_oldest_give_way(disk: DiskStore, tmp_path: Path) -> None:
    for batch in range(50):
        disk.set_many({f"{batch}-{number}": BODY for number in range(100)})

    assert size_on_disk(tmp_path) <= 1.2 * (1 << 20)
    assert disk.get_many("0-0")[0] is None
    assert disk.get_many(*(f"49-{number}" for number in range(100))) == [BODY] * 100
    with disk._database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM answers").fetchone()[0] > 500


def test_file_is_for_its_owner_alone(disk: DiskStore, tmp_path: Path) -> None:
    disk.set_many({"a": "1"})

    assert (tmp_path / "answers.sqlite3").stat().st_mode & 0o077 == 0


def test_nothing_in_the_file_is_a_pickle(disk: DiskStore, tmp_path: Path) -> None:
    disk.set_many({"a": '["plain text"]'})

    with disk._database.reading() as connection:
        assert [tuple(row) for row in connection.execute("SELECT key, body FROM answers")] == [("a", '["plain text"]')]


def test_damaged_file_is_replaced_by_the_probe(disk: DiskStore, tmp_path: Path) -> None:
    disk.set_many({"a": "1"})
    disk._database.close()
    for path in tmp_path.glob("answers.sqlite3*"):
        path.write_bytes(b"no database at all" * 500)

    with pytest.raises(StateUnusableError):
        disk.get_many("a")
    disk.probe()
    disk.set_many({"a": "2"})

    assert disk.get_many("a")[0] == "2"


def test_probe_leaves_a_file_alone_that_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file stands where the folder should")
    store = DiskStore(tmp_path / "folder" / "answers.sqlite3", 1 << 20, 60)

    with pytest.raises(StateUnusableError):
        store.probe()
