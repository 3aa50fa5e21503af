"""A machine as it comes: Debian's essential packages in a root of its own, own processes, no network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers import ROOT, Answer, wait_until

CACHED = ROOT / "build" / "bare-machine.tar"
# A server that people log in to has ssh, and so what verifies signatures; nothing else is added.
DEBIAN = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=openssh-client", "bookworm", str(CACHED)]
ENVIRONMENT = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]
SECONDS = 600.0
# On a disk, where images have room.
PLACE = "/var/tmp"  # noqa: S108  (each folder there has a name of its own)
# Its engine stores layers so; without it, each would be a copy of all below.
OVERLAY = ["-t", "overlay", "-o", "lowerdir=lower,upperdir=upper,workdir=work", "overlay", "merged"]
PROBE = ["--net", "--pid", "--mount", "--fork", "mount", *OVERLAY]

# In new namespaces: its own root, processes and a network that has nothing but loopback.
ENTER = """
set -e
ip link set lo up
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p old
pivot_root . old
exec chroot . sh -c 'umount -l /old; rmdir /old; touch /run/ready; exec sleep infinity'
"""
# Sent from this machine's Python within the network of the other: that one has none.
ASK = """
import json, sys, urllib.error, urllib.request
url, headers = sys.argv[1], json.loads(sys.argv[2])
request = urllib.request.Request(url, data=sys.stdin.buffer.read() or None, headers=headers)
try:
    answer = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.buffer.write(b"%d\\n" % answer.status + answer.read())
"""


def missing() -> str:
    """Why there can be no bare machine here; empty where there can."""
    for program in ("mmdebstrap", "unshare", "nsenter", "ip", "ssh-keygen", "zstd"):
        if not shutil.which(program):
            return f"there is no {program}; to have it: make docker-engine base-image"
    if os.geteuid() != 0:
        return "only the superuser makes root file systems and namespaces"
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        for name in ("lower", "upper", "work", "merged"):
            Path(folder, name).mkdir()
        done = subprocess.run(["unshare", *PROBE], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return (
        f"this machine allows no namespaces, or no overlay in {PLACE}: {done.stderr.strip()}" if done.returncode else ""
    )


@dataclass
class Machine:
    """One that runs; ``root`` is its root, seen from here."""

    root: Path
    pid: int

    def run(self, *command: str, check: bool = True) -> str:
        """What a command in it printed, both streams. Raises AssertionError when the command fails."""
        done = subprocess.run(
            ["nsenter", "--all", "--target", str(self.pid), *ENVIRONMENT, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def ask(self, path: str, token: str = "", body: bytes = b"", kind: str = "image/jpeg") -> Answer:
        """Its service's answer. Raises AssertionError where none comes."""
        headers = {"Content-Type": kind} if body else {}
        if token:
            headers["X-Api-Token"] = token
        url = f"http://127.0.0.1:8000{path}"
        command = ["nsenter", "--net", "--target", str(self.pid), sys.executable, "-c", ASK, url, json.dumps(headers)]
        done = subprocess.run(command, input=body, capture_output=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr.decode()
        status, _, content = done.stdout.partition(b"\n")
        return Answer(int(status), {}, content)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Machine]:
    """A fresh one; with it end all of its processes."""
    if not CACHED.exists():
        CACHED.parent.mkdir(exist_ok=True)
        subprocess.run(DEBIAN, check=True, timeout=SECONDS)
    root = folder / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", CACHED, "-C", root], check=True, timeout=SECONDS)
    namespaces = ["--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child"]
    holder = subprocess.Popen(["unshare", *namespaces, "bash", "-c", ENTER, "enter", str(root)])
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    try:
        wait_until(lambda: bool(children.read_text().split()), 30, "the first process of the bare machine")
        machine = Machine(root, int(children.read_text().split()[0]))
        wait_until(lambda: Path(f"/proc/{machine.pid}/root/run/ready").exists(), 30, "the bare machine to be ready")
        yield machine
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(machine.pid, signal.SIGKILL)
        holder.wait(timeout=60)
        shutil.rmtree(root, ignore_errors=True)
