"""What `make serve` keeps of its lines: all of them, in files of bounded size, and nobody waits or fails for it."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import ROOT, wait_until


def keep(path: Path, lines: bytes, max_bytes: int = 100_000, files: int = 3) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-IS", "apache/keep_log.py", str(path), str(max_bytes), str(files)]
    return subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, check=True)


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"line %07d %s\n" % (number, b"x" * 80) for number in range(first, last))


def test_lines_are_kept_and_passed_on(tmp_path: Path) -> None:
    done = keep(tmp_path / "logs" / "cask.log", b"one\ntwo\nthree without an end")

    assert (tmp_path / "logs" / "cask.log").read_bytes() == done.stdout == b"one\ntwo\nthree without an end"


def test_files_are_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "cask.log"
    keep(path, numbered(0, 3000))
    keep(path, numbered(3000, 6000))

    kept = sorted(tmp_path.iterdir())
    whole = b"".join(each.read_bytes() for each in reversed(kept))
    assert [each.name for each in kept] == ["cask.log", "cask.log.1", "cask.log.2"]
    assert all(each.stat().st_size <= 100_000 for each in kept)
    assert whole.endswith(numbered(4000, 6000))
    assert all(each.read_bytes().startswith(b"line ") and each.read_bytes().endswith(b"x\n") for each in kept)


def test_every_file_is_there_at_every_moment(tmp_path: Path) -> None:
    path, missed = tmp_path / "cask.log", 0
    files = [path, *(path.with_name(f"cask.log.{number}") for number in (1, 2))]
    for each in files:
        each.touch()
    command = [sys.executable, "-IS", "apache/keep_log.py", str(path), "2000", "3"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        for number in range(3000):
            child.stdin.write(numbered(number, number + 1))
            child.stdin.flush()
            missed += sum(not each.exists() for each in files)
        child.stdin.close()

    assert missed == 0
    assert child.returncode == 0
    assert path.read_bytes().endswith(numbered(2999, 3000))


def test_one_file_alone_begins_anew(tmp_path: Path) -> None:
    keep(tmp_path / "cask.log", numbered(0, 3000), files=1)

    assert [each.name for each in tmp_path.iterdir()] == ["cask.log"]
    assert (tmp_path / "cask.log").read_bytes().endswith(numbered(2990, 3000))


def test_where_nothing_can_be_kept_lines_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("not to be touched")
    (tmp_path / "cask.log").symlink_to(tmp_path / "elsewhere")

    done = keep(tmp_path / "cask.log", numbered(0, 5000))

    assert done.stdout == numbered(0, 5000)
    assert done.stderr.count(b"cannot be written") == 1
    assert (tmp_path / "elsewhere").read_text() == "not to be touched"


def ends_with(path: Path, line: bytes) -> bool:
    return path.exists() and path.read_bytes().endswith(line)


def rotated(tmp_path: Path, rotate: Callable[[int], object]) -> bytes:
    """All lines of a log that somebody else rotates while it is written, the oldest first."""
    path = tmp_path / "cask.log"
    command = [sys.executable, "-IS", "apache/keep_log.py", str(path), "100000000", "3"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        for number in range(300):
            child.stdin.write(numbered(number, number + 1))
            child.stdin.flush()
            child.stdout.readline()
            if number % 30 == 14:
                # What was passed on is kept a moment later; what comes between copy and cut, copytruncate loses.
                line = numbered(number, number + 1)
                wait_until(functools.partial(ends_with, path, line), 10, "the line to be kept")
                rotate(number // 30)
        child.stdin.close()
        child.stdout.read()
    files = sorted(tmp_path.glob("cask.log.*"), key=lambda each: int(each.suffix[1:]))
    return b"".join(each.read_bytes() for each in (*files, path))


def test_file_that_somebody_renames_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "cask.log"

    assert rotated(tmp_path, lambda number: path.rename(f"{path}.{number}")) == numbered(0, 300)


def test_file_that_somebody_removes_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "cask.log"

    assert rotated(tmp_path, lambda number: path.unlink()) == numbered(285, 300)


@pytest.mark.parametrize("way", ["", "copytruncate"])
def test_logrotate_rotates_both_ways(tmp_path: Path, way: str) -> None:
    program = shutil.which("logrotate", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("no logrotate here: apt-get install logrotate (requirements/install.sh dev does)")
    path, rules = tmp_path / "cask.log", tmp_path / "rules"
    example = (ROOT / "docker/systemd/cask.logrotate").read_text()
    ours = example.replace("/srv/cask/var/log/cask.log", str(path)).replace("su cask cask", way)
    rules.write_text(ours.replace("delaycompress", "").replace("compress\n", "nocompress\n"))
    rules.chmod(0o644)
    command = [program, "--force", "--state", str(tmp_path / "state"), str(rules)]

    text = rotated(tmp_path, lambda number: subprocess.run(command, check=True))

    assert sorted(text.splitlines()) == numbered(0, 300).splitlines()
