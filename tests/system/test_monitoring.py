"""`make up MONITORING=1`: a Prometheus beside the container sees it, and goes when it is requested no more."""

from __future__ import annotations

import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

import pytest

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


def ranges(network: str) -> str:
    """The ranges of a network's addresses, with commas between; empty where there is no such network."""
    if network not in containers.docker("network", "ls", "--format", "{{.Name}}").splitlines():
        return ""
    template = "{{range .IPAM.Config}}{{println .Subnet}}{{end}}"
    return ",".join(containers.docker("network", "inspect", "-f", template, network).split())


@pytest.fixture
def taken_range(unstarted: Stack) -> Iterator[str]:
    """The range of a network that another project has."""
    network = f"{unstarted.project}-other"
    containers.docker("network", "create", network)
    try:
        yield ranges(network)
    finally:
        containers.docker("network", "rm", network)


def test_prometheus_sees_the_container_and_goes_when_it_is_wished_no_more(unstarted: Stack, taken_range: str) -> None:
    port = servers.free_port()
    wishes = {"BUILD": "no", "MONITORING": "1", "PROMETHEUS_PORT": str(port), "METRICS_ALLOW": "192.0.2.7"}
    network = f"{unstarted.project}_monitoring"

    refused = unstarted.step("up", check=False, **wishes, MONITORING_SUBNET=taken_range)
    assert f"needs a network for Prometheus with MONITORING_SUBNET={taken_range}, found that the engine" in refused
    assert services(unstarted) == set()
    printed = unstarted.step("up", **wishes)

    assert f"http://127.0.0.1:{port}" in printed
    servers.wait_until(lambda: value(port, 'up{job="cask"}') == 1, PATIENCE_SECONDS, "Prometheus to see Cask")
    servers.wait_until(lambda: value(port, "cask_ready") == 1, PATIENCE_SECONDS, "it to see that it is ready")
    assert value(port, "count(cask_build_info)") == 1
    assert {"cask", "prometheus"} <= services(unstarted)
    # Whoever was allowed before still is.
    assert f"METRICS_ALLOW=192.0.2.7,{ranges(network)}" in unstarted.inspect("{{json .Config.Env}}")
    # Nobody else of the neighbourhood may read it.
    inside = str(next(ipaddress.ip_network(ranges(network).split(",")[0]).hosts()))
    assert unstarted.server.ask("/metrics", headers={"X-Forwarded-For": inside}).status == 403

    unstarted.step("up", BUILD="no")

    assert services(unstarted) == {"cask"}
    assert ranges(network) == ""
    # The way back makes the network that this release was made with.
    unstarted.step("rollback")

    assert services(unstarted) == {"cask", "prometheus"}
    assert f",{ranges(network)}" in next(
        each for each in unstarted.inspect("{{json .Config.Env}}") if each.startswith("METRICS_ALLOW=")
    )
    unstarted.step("down", VOLUMES="yes")
    assert unstarted.project not in containers.docker("volume", "ls")
    assert ranges(network) == ""
