"""What the image brings of its models serves from the first answer, without torch; on another processor too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import wait_until
from tests.system import containers
from tests.system.containers import Stack

READY_SECONDS = 120.0
BUILD_SECONDS = 600.0
CLASSIFIER = "site-safety-classifier"
# As docs/container.md starts it without Compose. The switch hides bf16: the image was then built on another processor.
TMP = "/tmp:size=512m,noexec"  # noqa: S108 - of the container
PLAIN = (
    *("--read-only", "--tmpfs", TMP, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "2g", "--pids-limit", "2048", "--env", "ENV=prod", "--env", f"MODELS={CLASSIFIER}"),
    *("--env", "SECRET_KEY=" + "0f1e2d3c4b5a6978" * 4, "--env", "ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI"),
)


@pytest.fixture
def elsewhere(unstarted: Stack) -> Iterator[Stack]:
    """A container of the classifier alone, on another processor than the image's build saw."""
    labels = (f"com.docker.compose.project={unstarted.project}", "com.docker.compose.service=cask")
    here = ("--label", labels[0], "--label", labels[1])
    port = ("--publish", f"127.0.0.1:{unstarted.port}:{unstarted.port}", "--env", f"PORT={unstarted.port}")
    id = containers.docker("run", "--detach", *PLAIN, *here, *port, containers.IMAGE)
    try:
        wait_until(unstarted.is_ready, READY_SECONDS, "the container on another processor")
        yield unstarted
    finally:
        containers.docker("rm", "--force", "--volumes", id)


def test_the_first_start_serves_what_the_image_brings(stack: Stack) -> None:
    for name in ("site-safety-classifier", "site-safety-detector"):
        model = _model(stack, name)

        assert model["build"]["state"] == "current"
        assert model["computed_by"] == _chosen(model)
        assert model["computed_by"].startswith("openvino")
    assert _model(stack, CLASSIFIER)["computed_by"] == "openvino int8"
    assert "in the background" not in stack.logs()


def test_no_process_holds_torch(stack: Stack) -> None:
    assert "openvino" in _maps(stack, stack.engine_pid())
    for row in stack.ask("/status").json["processes"]:
        assert "libtorch" not in _maps(stack, row["pid"])


def test_on_another_processor_int8_serves_at_once_and_is_measured_again_beside_it(elsewhere: Stack) -> None:
    model = _model(elsewhere, CLASSIFIER)
    assert model["computed_by"] == "openvino int8"
    assert model["build"]["state"] in ("running", "elsewhere")
    assert "libtorch" not in _maps(elsewhere, elsewhere.engine_pid())

    wait_until(lambda: _model(elsewhere, CLASSIFIER)["build"]["state"] == "current", BUILD_SECONDS, "the build")

    wait_until(lambda: "keeps its build" in elsewhere.logs(), READY_SECONDS, "the swap")
    model = _model(elsewhere, CLASSIFIER)
    verdicts = {
        f"{row['runtime']} {row['precision']}": row["verdict"] for row in model["build"]["report"]["candidates"]
    }
    assert "AVX512_CORE_VNNI" in model["build"]["report"]["processor"]
    assert model["computed_by"] == _chosen(model)
    assert verdicts["aotinductor fp32"] == "left out: there is no C++ compiler (g++) here"
    # Made by the image's build, since nothing here can make it.
    assert not verdicts["openvino int8"].startswith(("left out", "failed"))


def _model(stack: Stack, name: str) -> dict[str, Any]:
    answer = stack.ask(f"/v1/models/{name}")
    assert answer.status == 200, answer.body
    return dict(answer.json)


def _chosen(model: dict[str, Any]) -> str:
    return next(
        f"{row['runtime']} {row['precision']}" for row in model["build"]["report"]["candidates"] if row["is_chosen"]
    )


def _maps(stack: Stack, pid: int) -> str:
    """The files that a process maps; numbered as inside the container."""
    maps = stack.execute("cat", f"/proc/{pid}/maps")
    assert "python" in maps
    return maps
