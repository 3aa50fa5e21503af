"""docker/swarm/stack.yml on two machines, while callers ask: ``make swarm-under-load``.

An update of settings, an image whose models do not load, one that ends at once, a node that is drained, a node that
loses its power. Ends with status 1 where a request fails in one of the first four, or where after the last the
service does not answer again within 35 s. What was lost when the power went is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers import ROOT, wait_until
from tests.system import containers, deploys, swarm_nodes
from tests.system.callers import Callers, asking_at
from tests.system.containers import STEPS
from tests.system.deploys import Outcome, changed_image
from tests.system.swarm_nodes import Node, Site

IMAGE, HAPROXY = "cask-swarm-test:latest", "cask-swarm-test-haproxy:latest"
# Debian's package, started as the image haproxy:2.8 does.
HAPROXY_PACKAGE = "apt-get -qq update && apt-get -qq install -y --no-install-recommends haproxy"
HAPROXY_CHANGES = (
    "USER haproxy",
    'CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]',
)
ENDS = "printf '#!/bin/bash\\nexit 3\\n' >apache/serve.sh"
# Callers have addresses of their own, below this.
CALLERS = "10.97.1."
OPTIONS = ("--source", CALLERS, "--callers", "2", "--keeping", "1", "--pause", "0.2")
START_SECONDS, UPDATE_SECONDS, MOST_SECONDS_WITHOUT = 240.0, 900.0, 35.0
# Requests that must be answered when all is over.
AFTERWARDS = 50
PORT, SERVICE = 8000, "cask_cask"


@dataclass
class Swarm:
    """The stack on its nodes; the first is its manager."""

    site: Site
    nodes: list[Node]
    images: dict[str, str]
    folder: Path
    token: str = ""
    release: int = 0

    @property
    def manager(self) -> Node:
        return self.nodes[0]

    def deploy(self, kind: str = "good", **settings: str) -> None:
        """`docker stack deploy` with these settings and image; does not wait."""
        self.release += 1
        lines = {"SERVER_ALIASES": f"localhost,127.0.0.1,{','.join(each.address for each in self.nodes)}", **settings}
        path = self.folder / f"{self.release}.env"
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        given = {
            "CASK_IMAGE": self.images[kind],
            "HAPROXY_IMAGE": self.images["haproxy"],
            "RELEASE": str(self.release),
            "SETTINGS": str(path),
        }
        command = ("stack", "deploy", "--resolve-image", "never", "-c", str(ROOT / "docker/swarm/stack.yml"), "cask")
        containers.run("docker", "--host", f"unix://{self.manager.folder}/docker.sock", *command, **given)

    def state(self) -> str:
        """Of the last update: completed, updating, rollback_completed …; empty before the first."""
        return self.manager.docker(
            "service", "inspect", "-f", "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}", SERVICE
        )

    def wait_for_update(self, since: str) -> str:
        """Until the update that began after this moment has ended; its state."""
        wait_until(lambda: self._ended(since), UPDATE_SECONDS, "the update to end")
        return self.state()

    def _ended(self, since: str) -> bool:
        template = "{{if .UpdateStatus}}{{.UpdateStatus.StartedAt.Unix}} {{.UpdateStatus.State}}{{end}}"
        began, _, state = self.manager.docker("service", "inspect", "-f", template, SERVICE).partition(" ")
        return began >= since and state in ("completed", "paused", "rollback_completed", "rollback_paused")

    def running(self) -> dict[str, int]:
        """How many tasks run on which node; one runs when it is healthy."""
        template = "{{.Node}} {{.CurrentState}}"
        lines = self.manager.docker(
            "service", "ps", "--filter", "desired-state=running", "--format", template, SERVICE
        ).splitlines()
        on = [line.split()[0] for line in lines if line.split()[1:2] == ["Running"]]
        return {name: on.count(name) for name in sorted(set(on))}

    def wait_for_tasks(
        self, wanted: Callable[[dict[str, int]], bool], what: str, seconds: float = START_SECONDS
    ) -> None:
        """Until the running tasks are as wanted."""
        wait_until(lambda: wanted(self.running()), seconds, f"{what}; they are {self.running()}")

    def make_token(self) -> None:
        """For the callers, in the Redis that all tasks share."""
        task = self.manager.docker("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={SERVICE}").split()[0]
        made = self.manager.docker("exec", task, "python", "-m", "app.cli", "token", "create", "callers")
        self.token = next(word for line in made.splitlines() for word in line.split() if word.startswith("cask_"))

    @contextlib.contextmanager
    def asking(self, node: Node) -> Iterator[Callers]:
        """Callers of this node's port."""
        url = f"http://{node.address}:{PORT}"
        with asking_at(url, self.token, inside=self.site.inside(), options=OPTIONS) as callers:
            yield callers


@contextlib.contextmanager
def redis(site: Site) -> Iterator[str]:
    """A Redis in the site's network; its URL."""
    command = ["redis-server", "--bind", site.address, "--protected-mode", "no", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(site.inside(*command), stdout=subprocess.DEVNULL)
    try:
        yield f"redis://{site.address}:6379/0"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def swarm(images: dict[str, str]) -> Iterator[Swarm]:
    """Two nodes with all images, and the secrets of the stack."""
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(swarm_nodes.site())
        for number in (*range(1, 5), 250):
            swarm_nodes.run(*site.inside("ip", "address", "add", f"{CALLERS}{number}/32", "dev", "switch"))
        url = stack.enter_context(redis(site))
        nodes = [stack.enter_context(swarm_nodes.node(site, number)) for number in (1, 2)]
        nodes[0].docker("swarm", "init", "--advertise-addr", nodes[0].address)
        token = nodes[0].docker("swarm", "join-token", "--quiet", "worker")
        nodes[1].docker("swarm", "join", "--token", token, f"{nodes[0].address}:2377")
        for node in nodes:
            node.load(images.values())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cask-swarm-")))
        for name, value in {"cask_secret_key": os.urandom(32).hex(), "cask_redis_url": url}.items():
            path = folder / name
            path.write_text(value)
            nodes[0].docker("secret", "create", name, str(path))
        yield Swarm(site, nodes, images, folder)


def make_haproxy() -> None:
    """Its image, unless it is there already."""
    if containers.docker("images", "-q", HAPROXY):
        return
    base = os.environ.get("BASE_IMAGE", "debian:bookworm-slim")
    made = containers.docker("run", "-d", "--network", "host", base, "sh", "-c", HAPROXY_PACKAGE)
    assert containers.docker("wait", made) == "0", containers.docker("logs", made)
    changes = (word for change in HAPROXY_CHANGES for word in ("--change", change))
    containers.docker("commit", *changes, made, HAPROXY)
    containers.docker("rm", made)


@contextlib.contextmanager
def images(given: str) -> Iterator[dict[str, str]]:
    """The ids of what the nodes need: the image of this tree, two broken ones, HAProxy."""
    broken = {"model": deploys.CUT_WEIGHTS, "ends": ENDS}
    prefix = f"{IMAGE.split(':')[0]}-{os.getpid()}"
    names = [changed_image(f"{prefix}-{kind}:latest", words, given) for kind, words in broken.items()]
    make_haproxy()
    try:
        all_names = dict(zip(("good", *broken, "haproxy"), (given, *names, HAPROXY), strict=True))
        yield {kind: containers.docker("image", "inspect", "-f", "{{.Id}}", name) for kind, name in all_names.items()}
    finally:
        for name in names:
            containers.docker("rmi", "--force", name, check=False)


def now() -> str:
    return str(int(time.time()))


def update(swarm: Swarm, outcome: Outcome, name: str, wanted: str, kind: str = "good", **settings: str) -> None:
    """Deploy under callers of both nodes; the update ends as wanted, and no request is lost."""
    began, since = time.monotonic(), now()
    with swarm.asking(swarm.nodes[0]) as one, swarm.asking(swarm.nodes[1]) as two:
        swarm.deploy(kind, **settings)
        state = swarm.wait_for_update(since)
    took = time.monotonic() - began
    print(f"  {name:<34} {state}, {took:.0f} s; {one.describe()}; {two.describe()}", flush=True)
    outcome.expect(state == wanted, f"{name}: {state}, not {wanted}")
    outcome.expect(not one.lost and not two.lost, f"{name}: lost {dict(one.lost)} and {dict(two.lost)}")


def bring_back(swarm: Swarm) -> None:
    """Let the second node have a task again."""
    swarm.manager.docker("node", "update", "--availability", "active", "node2")
    swarm.wait_for_tasks(lambda on: on == {"node1": 1, "node2": 1}, "a task on each node")


def drain(swarm: Swarm, outcome: Outcome) -> None:
    """Take the second node out of service while callers ask the first."""
    began = time.monotonic()
    with swarm.asking(swarm.manager) as callers:
        swarm.manager.docker("node", "update", "--availability", "drain", "node2")
        wait_until(lambda: not swarm.nodes[1].docker("ps", "-q"), START_SECONDS, "node2 to have no container")
        callers.wait_for(AFTERWARDS)
    print(f"  drain of node2                     {time.monotonic() - began:.0f} s; {callers.describe()}", flush=True)
    outcome.expect(not callers.lost, f"drain: lost {dict(callers.lost)}")
    bring_back(swarm)


def predicted(node: Node) -> int:
    """How many predictions the task of this node has answered, by its log."""
    task = node.docker("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={SERVICE}").split()[0]
    return node.docker("logs", task).count('"path": "/v1/')


def cut_power(swarm: Swarm, outcome: Outcome) -> None:
    """Kill the second node while callers ask the first, whose edge sends to both."""
    lost = swarm.nodes[1]
    with swarm.asking(swarm.manager) as callers:
        before = predicted(lost)
        wait_until(lambda: predicted(lost) > before + 10, START_SECONDS, "node2 to answer, too")
        lost.cut_power()
        began = time.monotonic()
        wait_until(lambda: "Down" in swarm.manager.docker("node", "ls"), START_SECONDS, "the swarm to know it is gone")
        took = time.monotonic() - began
        callers.wait_for(AFTERWARDS)
    print(f"  node2 killed                       down for Swarm after {took:.0f} s; {callers.describe()}", flush=True)
    outcome.expect(callers.gap_seconds <= MOST_SECONDS_WITHOUT, f"no answer for {callers.gap_seconds:.1f} s")


PARTS: dict[str, Callable[[Swarm, Outcome], None]] = {
    "update": lambda swarm, outcome: update(swarm, outcome, "an update", "completed", JOBS_MAX_IMAGES="77"),
    "ends": lambda swarm, outcome: update(swarm, outcome, "an image that ends at once", "rollback_completed", "ends"),
    "model": lambda swarm, outcome: update(swarm, outcome, "an image without models", "rollback_completed", "model"),
    "drain": drain,
    "power": cut_power,
}


def main() -> int:
    """Returns 1 where something was not as promised."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--image", default="", help="one that is there, instead of building that of this tree")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="these only")
    given = parser.parse_args()
    if reason := containers.missing_engine() or swarm_nodes.missing():
        print(f"FAIL: {reason}", file=sys.stderr)
        return 2
    if not given.image:
        containers.run(STEPS / "base-image.sh")
        containers.run(STEPS / "build.sh", CASK_IMAGE=IMAGE)
    outcome = Outcome()
    with images(given.image or IMAGE) as ids, swarm(ids) as stack:
        began = time.monotonic()
        stack.deploy()
        bring_back(stack)
        print(f"  first deploy                       two tasks run after {time.monotonic() - began:.0f} s", flush=True)
        stack.make_token()
        for part in given.parts:
            PARTS[part](stack, outcome)
    print(f"FAIL: {len(outcome.faults)} faults" if outcome.faults else "  all as promised")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
