"""The machine's share that is ours: affinity, and the quota of either kind of cgroup."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.config import ROOT
from app.host import machine


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def v1(folder: Path, quota: str, period: str = "100000") -> None:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (folder / "cpu" / "cpu.cfs_period_us").write_text(period + "\n")


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("6400000 100000", 8),
        ("", 8),
        ("max", 8),
        ("a b", 8),
        ("100000 0", 8),
    ],
)
def test_quota_of_a_cgroup_v2_cuts_the_cores(tmp_path: Path, cpu_max: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(cpu_max + "\n")

    assert machine.available_cores(tmp_path) == cores


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("300000", 3), ("50000", 1)])
def test_quota_of_a_cgroup_v1_cuts_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    v1(tmp_path, quota)

    assert machine.available_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/system.slice/cask.service", "system.slice/cask.service/memory.max"),
        ("0::/system.slice/cask.service", "system.slice/memory.max"),
        ("4:memory:/docker/cask", "memory/docker/cask/memory.limit_in_bytes"),
    ],
)
def test_limit_of_the_own_group_or_one_around_it_counts(tmp_path: Path, line: str, file: str) -> None:
    membership, limit = tmp_path / "membership", tmp_path / "fs" / file
    membership.write_text(f"1:cpu:/elsewhere\n{line}\n")
    limit.parent.mkdir(parents=True)
    limit.write_text(f"{2**28}\n")

    assert machine.available_bytes(tmp_path / "fs", membership) == 2**28


@pytest.mark.usefixtures("eight_cores")
def test_without_a_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert machine.available_cores(tmp_path) == 8


def test_memory_of_this_process_is_known() -> None:
    assert 1_000_000 < machine.resident_bytes() == pytest.approx(machine.resident_bytes(os.getpid()), rel=0.5)


def test_process_that_is_gone_has_no_memory() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    assert machine.resident_bytes(child.pid) == 0


HAS_GPU = """
import sys; from pathlib import Path; from app.host import machine
sys.path.insert(0, sys.argv[1])
print(machine.has_gpu(Path(sys.argv[2])), "torch" in sys.modules)
"""


@pytest.mark.parametrize(("is_visible", "is_for_cuda"), [(True, True), (True, False), (False, True)])
def test_a_gpu_counts_where_it_is_visible_and_torch_was_built_for_it(
    tmp_path: Path, is_visible: bool, is_for_cuda: bool
) -> None:
    library = tmp_path / "torch" / machine.CUDA_LIBRARY
    library.parent.mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('it must not be imported')")
    if is_for_cuda:
        library.touch()
    control = tmp_path / "nvidiactl"
    if is_visible:
        control.touch()

    said = subprocess.run(
        [sys.executable, "-c", HAS_GPU, tmp_path, control], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert said.stdout.split() == [str(is_visible and is_for_cuda), "False"]


@pytest.mark.parametrize(
    ("requested", "is_there", "device"),
    [
        ("auto", True, "cuda:0"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cuda", False, "cuda:0"),
        ("cuda:1", False, "cuda:1"),
    ],
)
def test_device_follows_the_wish_and_auto_follows_what_is_there(
    monkeypatch: pytest.MonkeyPatch, requested: str, is_there: bool, device: str
) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: is_there)

    assert machine.device(requested) == device


def test_processor_time_grows_with_what_is_computed_and_is_none_of_a_process_that_ended() -> None:
    before, used = machine.cpu_seconds(), time.process_time()
    while time.process_time() < used + 0.05:
        sum(range(10_000))
    child = subprocess.Popen(["true"])
    child.wait()

    assert machine.cpu_seconds(os.getpid()) >= before + 0.03
    assert machine.cpu_seconds() == pytest.approx(time.process_time(), abs=0.1)
    assert machine.cpu_seconds(child.pid) == 0


def test_a_lull_begins_once_after_work() -> None:
    seconds, used = [0.0], [0.0]
    lull = machine.Lull(lambda: used[0], lambda: seconds[0])

    def look(work: float) -> bool:
        seconds[0] += 1
        used[0] += work
        return lull.has_begun()

    # To start was work.
    assert [look(0.01), look(0.01)] == [True, False]
    assert [look(0.5), look(0.3)] == [False, False]
    assert [look(0.01), look(0.01), look(0.04)] == [True, False, False]
    assert not lull.is_awaited
    assert [look(1.9), lull.is_awaited, look(0.0)] == [False, True, True]


def test_what_was_freed_goes_back_to_the_system() -> None:
    """In a process of its own, for here another thread may hold the top of the heap."""
    code = (
        "import os; os.environ['MALLOC_TRIM_THRESHOLD_'] = '1000000000'\n"
        "from app.host import machine\n"
        "kept = [bytes(100_000) for _ in range(1000)]\n"
        "last = bytes(100_000)\n"
        "del kept\n"
        "before = machine.resident_bytes()\n"
        "machine.trim_memory()\n"
        "print(before - machine.resident_bytes())\n"
    )
    environ = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, check=True, capture_output=True)

    assert int(done.stdout) > 50_000_000


def test_what_was_freed_is_used_again_where_it_shall_be_kept() -> None:
    code = (
        "import resource, sys\n"
        "from app.host import machine\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(10): [bytes(b'x') * 3_000_000 for _ in range(10)]\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "first = [faults(), faults()][1]\n"
        "machine.keep_freed_memory()\n"
        "print(first, [faults(), faults()][1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)

    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 10


def test_what_threads_freed_goes_back_too_as_the_service_is_started() -> None:
    """glibc gives nothing back from the end of another arena than the first."""
    start = (ROOT / "apache" / "serve.sh").read_text()
    (line,) = (line for line in start.splitlines() if line.startswith("export MALLOC_ARENA_MAX="))
    code = (
        "import threading\n"
        "from app.host import machine\n"
        "machine.keep_freed_memory()\n"
        "meet = threading.Barrier(2)\n"
        "def work():\n"
        "    blocks = [b'x' * 1_000_000 for _ in range(40)]\n"
        "    meet.wait()\n"
        "threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "before = machine.resident_bytes()\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "most = machine.resident_bytes() - before\n"
        "machine.trim_memory()\n"
        "print(most, machine.resident_bytes() - before)\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = ["bash", "-c", f'{line}; exec "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True)

    most, left = map(int, done.stdout.split())
    assert most > 70_000_000
    assert left < 10_000_000


def test_file_that_is_mapped_to_be_read_is_not_held_in_memory_and_still_reads_the_same(tmp_path: Path) -> None:
    data = os.urandom(4 * 1024**2)
    for name in ("read", "written"):
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "read").open("rb") as read, (tmp_path / "written").open("r+b") as written:
        shown = mmap.mmap(read.fileno(), 0, access=mmap.ACCESS_READ)
        own = mmap.mmap(written.fileno(), 0, access=mmap.ACCESS_COPY)
        own[:4] = b"mine"
        assert shown[:] == data
        before = _held_bytes(tmp_path / "read")

        machine.forget_mapped_files()

        assert before == len(data)
        assert _held_bytes(tmp_path / "read") == 0
        assert shown[:] == data
        # What nobody could read again from the file stays where it is.
        assert own[:] == b"mine" + data[4:]
        shown.close()
        own.close()


def test_code_that_ran_is_not_held_in_memory_and_still_runs() -> None:
    """In a process of its own: how much of a library is held is a matter of what ran before."""
    code = (
        "import ssl\n"
        "from app.host import machine\n"
        "from tests.unit.host.test_machine import _held_bytes\n"
        "path = next(row.split()[-1] for row in open('/proc/self/maps') if 'libcrypto' in row)\n"
        "before = _held_bytes(path, 'r-xp')\n"
        "machine.forget_mapped_files()\n"
        "print(before, _held_bytes(path, 'r-xp'), ssl.RAND_bytes(8) != ssl.RAND_bytes(8))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)

    before, after, works = done.stdout.split()
    assert (int(before) > 500_000, int(after), works) == (True, 0, "True")


def test_where_mappings_cannot_be_read_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MAPPINGS", tmp_path / "none")

    machine.forget_mapped_files()


def _held_bytes(path: Path | str, rights: str = "") -> int:
    """How much of a mapped file is in this process's memory, in its first mapping (proc_pid_smaps(5))."""
    rows = Path("/proc/self/smaps").read_text().splitlines()
    at = next(i for i, row in enumerate(rows) if row.endswith(str(path)) and rights in row)
    return 1024 * next(int(row.split()[1]) for row in rows[at:] if row.startswith("Rss:"))


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
"""


def test_a_container_knows_its_hosts_address_and_a_machine_has_none(tmp_path: Path) -> None:
    routes, mark = tmp_path / "route", tmp_path / ".dockerenv"
    routes.write_text(ROUTES)
    assert machine.container_gateway((mark,), routes) == ""

    mark.touch()

    assert machine.container_gateway((mark,), routes) == "172.17.0.1"
    assert machine.container_gateway((mark,), tmp_path / "missing") == ""
