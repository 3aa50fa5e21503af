"""``flask jobs`` on a folder of jobs: what it prints, what it changes, how it ends."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app import config
from app.cli.jobs import command
from app.jobs import stores
from app.jobs.jobs import Job, Wanted
from app.jobs.store import JobStore
from app.storage import state_schema
from tests import fakes
from tests.fakes import picture


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> config.Settings:
    made = fakes.make_settings(tmp_path, tmp_path / "models")
    monkeypatch.setattr(config, "resolve_known", lambda place, *needed: (made, []))
    return made


@pytest.fixture
def store(settings: config.Settings) -> JobStore:
    return stores.of(settings)


def add(store: JobStore, count: int = 2) -> Job:
    with store.packing() as pack:
        for number in range(count):
            pack.add(f"{number}.jpg", picture())
        return store.add(Wanted("detect", {"max_results": 3}), pack)[0]


def finish_all(store: JobStore, **answer: object) -> None:
    while claim := store.claim():
        store.finish(claim, {"number": claim.number, **answer})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize("arguments", [("list",), ("show", "x"), ("purge", "-y")])
def test_where_there_have_been_no_jobs_none_are_made(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)

    assert done.exit_code == 1
    assert done.stderr.startswith(f"FAIL: There have been no jobs in {tmp_path}.\nNext: ")
    assert not (tmp_path / "jobs").exists()


def test_a_service_whose_jobs_process_still_waits_for_the_first_has_none(tmp_path: Path) -> None:
    (tmp_path / state_schema.FILE).write_text("{}")

    assert "There is no job." in run("list").output
    assert json.loads(run("list", "--json").stdout) == []
    assert "x" in run("show", "x").stderr
    assert "No such job has ended." in run("purge", "-y").output


def test_list_prints_the_newest_first(store: JobStore) -> None:
    first, second = add(store), add(store)
    finish_all(store)
    third = add(store, 1)

    lines = [line.split()[:6] for line in run("list").stdout.splitlines()]
    assert lines[1] == [third.id, "queued", "detect", "0", "0", "1"]
    assert {line[0] for line in lines[2:]} == {first.id, second.id}
    assert [row["id"] for row in json.loads(run("list", "--json", "--open").stdout)] == [third.id]


def test_show_prints_one_job(store: JobStore) -> None:
    job = add(store)

    text = run("show", job.id).stdout
    assert f"{job.id}\n" in text
    assert "done 0, failed 0, total 2" in text
    assert json.loads(run("show", job.id, "--json").stdout)["options"] == {"max_results": 3}


def test_show_of_another_job_is_refused(store: JobStore) -> None:
    add(store)
    done = run("show", "nobody")

    assert done.exit_code == 1
    assert done.stderr.startswith("FAIL: There is no job 'nobody'.")


def test_follow_waits_for_the_end_and_results_are_lines(store: JobStore) -> None:
    job = add(store)
    worker = threading.Timer(0.1, lambda: finish_all(store, who="worker"))
    worker.start()
    done = run("show", job.id, "--follow", "--results")
    worker.join()

    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"number": 1, "who": "worker"},
        {"number": 2, "who": "worker"},
    ]


def test_cancel_asks_first(store: JobStore) -> None:
    job = add(store)

    refused = run("cancel", job.id)
    assert refused.exit_code == 2
    assert store.get(job.id)
    assert run("cancel", job.id, "--yes").exit_code == 0
    assert store.list() == []


def test_retry_puts_failed_images_back(store: JobStore) -> None:
    job = add(store)
    finish_all(store, error={"code": "engine_away"})

    assert run("retry", job.id).stdout == f"2 images of job {job.id} are in the line again.\n"
    assert store.get(job.id).state == "queued"
    assert run("retry", job.id).exit_code == 1


def test_purge_forgets_what_has_ended(store: JobStore) -> None:
    add(store)
    finish_all(store)
    left = add(store)

    assert run("purge", "--yes", "--older-than", "1").stderr == "No such job has ended.\n"
    assert run("purge", "--yes").stdout == "Gone: 1.\n"
    assert [job.id for job in store.list()] == [left.id]
