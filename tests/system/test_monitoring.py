"""`make up MONITORING=1`: a Prometheus beside the container sees it, and goes when it is requested no more."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request

from tests import servers
from tests.system import containers
from tests.system.containers import Stack

PATIENCE_SECONDS = 90.0


def value(port: int, expression: str) -> float | None:
    """What the Prometheus at this port says; None while it does not."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
    except (OSError, urllib.error.HTTPError):
        return None
    return float(found[0]["value"][1]) if found else None


def services(stack: Stack) -> set[str]:
    """Which services of the project run."""
    label = f"label=com.docker.compose.project={stack.project}"
    return set(
        containers.docker("ps", "--filter", label, "--format", '{{.Label "com.docker.compose.service"}}').splitlines()
    )


def test_prometheus_sees_the_container_and_goes_when_it_is_wished_no_more(unstarted: Stack) -> None:
    port = servers.free_port()
    printed = unstarted.step(
        "up", BUILD="no", MONITORING="1", PROMETHEUS_PORT=str(port), MONITORING_SUBNET="172.30.252.0/28"
    )

    assert f"http://127.0.0.1:{port}" in printed
    servers.wait_until(lambda: value(port, 'up{job="cask"}') == 1, PATIENCE_SECONDS, "Prometheus to see Cask")
    servers.wait_until(lambda: value(port, "cask_ready") == 1, PATIENCE_SECONDS, "it to see that it is ready")
    assert value(port, "count(cask_build_info)") == 1
    assert {"cask", "prometheus"} <= services(unstarted)
    # Nobody else of the neighbourhood may read it.
    assert unstarted.server.ask("/metrics", headers={"X-Forwarded-For": "172.30.252.2"}).status == 403

    unstarted.step("up", BUILD="no")

    assert services(unstarted) == {"cask"}
    assert unstarted.project not in containers.docker("network", "ls", "--filter", "name=_monitoring")
    unstarted.step("down", VOLUMES="yes")
    assert unstarted.project not in containers.docker("volume", "ls")
