"""Why a process ended that could not say so: crash, lack of memory and kill are told apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.host import machine
from app.telemetry import metrics, post_mortem, shards
from app.telemetry.post_mortem import MemoryKills
from tests.attacks.memory_groups import NoMemoryGroupError, memory_group
from tests.servers import ROOT

LIMIT_BYTES = 96 * 1024**2
PROCESS = """
import ctypes, os, signal, sys
from pathlib import Path
from app.telemetry import metrics
metrics.begin(Path(sys.argv[1]), "engine")
if sys.argv[2] == "crash":
    ctypes.string_at(1)
elif sys.argv[2] == "abort":
    os.abort()
elif sys.argv[2] == "exit":
    os._exit(3)
elif sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif sys.argv[2] == "memory":
    held = [bytearray(b"x" * 2**20) for _ in range(1024)]
elif sys.argv[2] in ("recycled", "timeout"):
    metrics.share().stop(sys.argv[2])
"""


def run(state_dir: Path, end: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A process of the engine's role that ends so."""
    command = [*prefix, sys.executable, "-c", PROCESS, str(state_dir), end]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def causes(state_dir: Path) -> dict[str, float]:
    """How often each cause was counted."""
    rows = metrics.read(state_dir)[metrics.RESTARTS]
    return {cause: values[0] for (_, cause), values in rows.items() if values[0]}


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        *(("crash", "crash"), ("abort", "crash"), ("exit", "killed"), ("kill", "killed")),
        *(("recycled", "recycled"), ("timeout", "timeout"), ("", "stopped")),
    ],
)
def test_the_next_process_tells_how_the_one_before_ended(tmp_path: Path, end: str, cause: str) -> None:
    run(tmp_path, end)

    said = run(tmp_path, "").stderr

    assert causes(tmp_path) == {cause: 1}
    assert [row["cause"] for row in post_mortem.ends(tmp_path)] == [cause]
    words = post_mortem.WORDS.get(cause, "")  # type: ignore[call-overload]
    assert (f"the previous engine process {words}" in said) if words else ("previous" not in said)


def test_a_crash_is_told_with_its_line(tmp_path: Path) -> None:
    run(tmp_path, "crash")

    said = run(tmp_path, "").stderr

    assert 'crashed: Segmentation fault, File "' in said
    assert 'File "<string>", line 7 in <module>' in said


def test_a_later_kill_is_not_put_down_to_an_earlier_crash(tmp_path: Path) -> None:
    for end in ("crash", "kill", ""):
        run(tmp_path, end)

    assert causes(tmp_path) == {"crash": 1, "killed": 1}


def test_what_the_kernel_ended_for_want_of_memory_is_told_once(tmp_path: Path) -> None:
    try:
        with memory_group(LIMIT_BYTES) as group:
            for end in ("memory", "kill", ""):
                run(tmp_path, end, group.command_prefix)
            assert group.kills() == 1
    except NoMemoryGroupError as error:
        pytest.skip(f"no memory cgroup: {error}")

    assert causes(tmp_path) == {"memory": 1, "killed": 1}


@pytest.mark.parametrize(
    ("file", "line"), [("memory.events", "0::/a/b"), ("memory/memory.oom_control", "4:memory:/a/b")]
)
@pytest.mark.parametrize("place", ["a/b", ""])
def test_the_kernels_count_is_found_in_either_kind_of_cgroup(tmp_path: Path, file: str, line: str, place: str) -> None:
    membership, path = tmp_path / "membership", Path(file)
    membership.write_text(f"1:cpu:/elsewhere\n{line}\n")
    counts = tmp_path / "fs" / path.parent / place / path.name
    counts.parent.mkdir(parents=True)
    counts.write_text("oom 9\nunder_oom 0\noom_kill 3\n")

    assert machine.memory_kills(tmp_path / "fs", membership) == 3
    assert machine.memory_kills(tmp_path / "nowhere", membership) == 0


def test_kills_that_no_process_of_ours_explains_are_written_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / post_mortem.FOLDER).mkdir(parents=True)
    counted, now = [5], [0.0]
    monkeypatch.setattr(machine, "memory_kills", lambda: counted[0])
    kills = MemoryKills(tmp_path, clock=lambda: now[0])
    kills.look()
    counted[0] = 7

    for second in (0.0, post_mortem.UNCLAIMED_SECONDS):
        now[0] = second
        kills.look()

    assert "the kernel ended 2 processes here" in caplog.text
    assert not post_mortem.was_out_of_memory(tmp_path)


def test_reasons_of_mod_wsgi_are_known_ends() -> None:
    assert set(post_mortem.REASONS.values()) <= set(shards.NUMBERS)
