"""Machines of a Docker Swarm on one machine: each a container engine with namespaces of its own, on one small network.

A node's engine has its own network, processes, mounts and host name, so that killing its first process is a power cut:
the engine, its containers and their connections are gone at once, and nothing says goodbye.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers import wait_until
from tests.system import containers

ENGINE_SECONDS = 60.0
NETWORK, SITE_HOST = "10.97.0", 254
CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class Site:
    """The network that the nodes are in, a network namespace; callers and Redis are in it too."""

    name: str

    @property
    def address(self) -> str:
        return f"{NETWORK}.{SITE_HOST}"

    def inside(self, *command: str | Path) -> list[str]:
        """This command, to be run in the site's network."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *map(str, command)]


@dataclass
class Node:
    """One machine of the swarm."""

    name: str
    address: str
    folder: Path
    link: str  # its cable's end in the site's network
    site: Site
    process: subprocess.Popen[bytes]

    def docker(self, *arguments: str, check: bool = True) -> str:
        """What docker printed for this node's engine, without the newline at its end."""
        return containers.docker("--host", f"unix://{self.folder}/docker.sock", *arguments, check=check)

    def answers(self) -> bool:
        """Whether its engine does."""
        command = ["docker", "--host", f"unix://{self.folder}/docker.sock", "info"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def load(self, images: Iterable[str]) -> None:
        """Bring images of this machine's engine here, as `docker save | ssh node docker load` does."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
            command = ["docker", "--host", f"unix://{self.folder}/docker.sock", "load", "--quiet"]
            subprocess.run(command, stdin=saved.stdout, stdout=subprocess.DEVNULL, check=True)
        assert saved.returncode == 0, f"docker save ended with {saved.returncode}"

    def cut_power(self) -> None:
        """Nothing of it answers any more, not even that its ports are closed."""
        run(*self.site.inside("ip", "link", "set", self.link, "down"))
        for pid in _children(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def missing() -> str:
    """Why no nodes can be made here; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces want the superuser"
    for program in ("dockerd", "ip", "nsenter", "unshare"):
        if not shutil.which(program):
            return f"there is no {program}; apt-get install docker.io iproute2 util-linux"
    probe = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "probe", "type", "vxlan", "id", "9", "dstport", "4789"],
        capture_output=True,
        check=False,
    )
    return "" if probe.returncode == 0 else "the kernel has no vxlan, which networks over several machines are made of"


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """A network that this machine's own engine and firewall know nothing of."""
    made = Site(f"cask-site-{os.getpid()}")
    run("ip", "netns", "add", made.name)
    try:
        run(*made.inside("ip", "link", "set", "lo", "up"))
        run(*made.inside("ip", "link", "add", "switch", "type", "bridge"))
        run(*made.inside("ip", "address", "add", f"{made.address}/24", "dev", "switch"))
        run(*made.inside("ip", "link", "set", "switch", "up"))
        yield made
    finally:
        run("ip", "netns", "delete", made.name)


@contextlib.contextmanager
def node(site: Site, number: int) -> Iterator[Node]:
    """A machine with a cable to the site's switch; its engine answers."""
    name = f"{site.name}-{number}"
    folder = Path(tempfile.mkdtemp(prefix=f"cask-node{number}-"))
    (folder / "daemon.json").write_text("{}")
    link = f"port{number}"
    run("ip", "netns", "add", name)
    try:
        run(*site.inside("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name))
        run(*site.inside("ip", "link", "set", link, "up", "master", "switch"))
        for words in (
            "link set lo up",
            f"address add {NETWORK}.{number}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {site.address}",
        ):
            run("ip", "netns", "exec", name, "ip", *words.split())
        with _engine(name, number, folder) as process:
            made = Node(f"node{number}", f"{NETWORK}.{number}", folder, link, site, process)
            wait_until(lambda: process.poll() is not None or made.answers(), ENGINE_SECONDS, f"the engine of {name}")
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            yield made
    finally:
        run("ip", "netns", "delete", name)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _engine(namespace: str, number: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    cgroup = f"/{namespace}"
    engine = [
        "dockerd",
        *("--config-file", folder / "daemon.json", "--data-root", folder / "data", "--exec-root", folder / "exec"),
        *("--pidfile", folder / "pid", "--host", f"unix://{folder}/docker.sock", "--cgroup-parent", cgroup),
        *("--storage-driver", "overlay2", "--log-level", "warn"),
    ]
    # The engine's own key and the sockets of its containers are this node's alone.
    first = f'hostname node{number}; mount -t tmpfs tmpfs /etc/docker; mount -t tmpfs tmpfs /run/containerd; exec "$@"'
    Path("/etc/docker").mkdir(exist_ok=True)
    Path("/run/containerd").mkdir(exist_ok=True)
    own = ["--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-c", first, "sh"]
    command = ["nsenter", f"--net=/run/netns/{namespace}", "unshare", *own, *map(str, engine)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        for pid in _children(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        # The last processes may still be about to end.
        wait_until(lambda: _is_removed(CGROUPS.glob(f"*{cgroup}")), ENGINE_SECONDS, f"{namespace} to have no process")


def _is_removed(folders: Iterable[Path]) -> bool:
    """Whether nothing is left of these control groups; each is removed where no process is in it."""
    found = [each for folder in folders for each in [*sorted(folder.glob("**/"), reverse=True), folder]]
    for path in found:
        with contextlib.suppress(OSError):
            path.rmdir()
    return not any(path.exists() for path in found)


def run(*command: str | Path) -> str:
    """What it printed. Raises AssertionError with that where it fails."""
    return containers.run(*command)


def _children(pid: int) -> list[int]:
    """The processes that it started; for `unshare --fork` the first of the new namespace, whose end is that of all."""
    with contextlib.suppress(OSError):
        return [int(each) for each in re.findall(r"\d+", Path(f"/proc/{pid}/task/{pid}/children").read_text())]
    return []
