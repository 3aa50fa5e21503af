"""How many of everything, and why: the machine's share where the settings are silent, the settings where they speak."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import config
from app.config import Settings
from app.host import sizing

GIGABYTE = 1024**3


def settings(**environ: str) -> Settings:
    return config.load({"ENV": "prod", "SECRET_KEY": "b0e6f4a2197c4d83" * 2, "DEVICE": "cpu", **environ})


@pytest.mark.parametrize(("cores", "workers", "processes"), [(1, 1, 1), (2, 2, 1), (4, 4, 1), (5, 5, 2), (16, 16, 4)])
def test_numbers_follow_the_cores(cores: int, workers: int, processes: int) -> None:
    sizes = sizing.choose(settings(), cores=cores, memory_bytes=64 * GIGABYTE)

    assert sizes.engine_workers.value == workers
    assert sizes.web_processes.value == processes


def test_little_memory_allows_fewer_processes() -> None:
    sizes = sizing.choose(settings(), cores=64, memory_bytes=1 * GIGABYTE)

    assert sizes.web_processes.value == 3
    assert "no more fit into 1024 MB" in sizes.web_processes.reason


def test_at_least_one_process_serves_however_little_memory_there_is() -> None:
    assert sizing.choose(settings(), cores=8, memory_bytes=GIGABYTE // 8).web_processes.value == 1


def test_a_set_value_always_wins() -> None:
    requested = settings(ENGINE_WORKERS="7", WEB_PROCESSES="3", WEB_THREADS="5", SERVER_MAX_CONNECTIONS="90")

    sizes = sizing.choose(requested, cores=2, memory_bytes=GIGABYTE)

    assert [sizes.engine_workers.value, sizes.web_processes.value, sizes.web_threads.value] == [7, 3, 5]
    assert sizes.server_max_connections.value == 90
    assert sizes.engine_workers.reason == "set"


@pytest.mark.parametrize("cores", [1, 2, 8, 64])
def test_numbers_fit_together(cores: int) -> None:
    sizes = sizing.choose(settings(), cores=cores, memory_bytes=16 * GIGABYTE)

    assert sizes.server_max_connections.value > sizes.web_processes.value * sizes.web_threads.value
    assert sizes.web_places.value < sizes.web_threads.value
    assert sizes.engine_max_queue_size.value >= settings().request_max_images


def test_each_number_says_why() -> None:
    lines = [str(size) for size in sizing.choose(settings(), cores=2, memory_bytes=GIGABYTE)]

    assert "ENGINE_WORKERS 2 (one a core, 2 here)" in lines
    assert all("(" in line for line in lines)


def test_on_a_gpu_two_workers_take_turns_however_many_cores_there_are() -> None:
    sizes = sizing.choose(settings(DEVICE="cuda:1"), cores=16, memory_bytes=64 * GIGABYTE)

    assert str(sizes.engine_workers) == (
        "ENGINE_WORKERS 2 (on cuda:1 one prepares while the other one's batch is computed)"
    )
    assert sizes.engine_max_batch_size.reason == "until make model-build has measured what is best on cuda:1"


def test_a_set_number_of_workers_wins_on_a_gpu_too() -> None:
    sizes = sizing.choose(settings(DEVICE="cuda", ENGINE_WORKERS="3", ENGINE_MAX_BATCH_SIZE="24"), cores=16)

    assert (sizes.engine_workers.value, sizes.engine_max_batch_size.value) == (3, 24)


def test_requests_may_hold_what_processes_and_models_leave(tmp_path: Path) -> None:
    (tmp_path / "large" / "1").mkdir(parents=True)
    with (tmp_path / "large" / "1" / "model.safetensors").open("wb") as file:
        file.truncate(GIGABYTE // 4)
    requested = settings(WEB_PROCESSES="1")
    with_model = requested.model_copy(update={"models_dir": tmp_path})

    sizes = [sizing.choose(each, cores=2, memory_bytes=2 * GIGABYTE) for each in (requested, with_model)]

    without, beside = (each.request_memory.value for each in sizes)
    assert 0.3 * GIGABYTE < without < 1.3 * GIGABYTE
    assert beside < without - GIGABYTE // 8


def test_one_phones_picture_fits_however_little_memory_there_is() -> None:
    assert sizing.choose(settings(), cores=2, memory_bytes=GIGABYTE // 4).request_memory.value == 96 * 1024**2


@pytest.mark.parametrize("cores", [2, 32, 64])
def test_container_has_room_for_all_threads(cores: int) -> None:
    sizes = sizing.choose(settings(), cores=cores, memory_bytes=128 * GIGABYTE)
    compose = (config.ROOT / "docker" / "compose.yaml").read_text()
    limit = next(int(line.split(":")[1]) for line in compose.splitlines() if line.strip().startswith("pids_limit:"))
    everywhere = sizes.server_max_connections.value + 2 * sizes.web_processes.value * sizes.web_threads.value

    assert everywhere < sizes.needed_threads < limit


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_files_that_a_process_needs_are_reckoned(cores: int) -> None:
    sizes = sizing.choose(settings(), cores=cores, memory_bytes=128 * GIGABYTE)

    assert sizes.needed_files > 2 * sizes.server_threads
    assert sizes.needed_files > sizes.web_processes.value * sizes.web_threads.value
