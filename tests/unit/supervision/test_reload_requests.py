"""A signal to Apache left a file: one reload is begun, and another one after it for what came meanwhile."""

from __future__ import annotations

import fcntl
from pathlib import Path

from app.supervision.reload_requests import ASKED, LOCK, ReloadRequests


def test_a_request_begins_one_reload(tmp_path: Path) -> None:
    begun: list[int] = []
    requests = ReloadRequests(tmp_path, lambda: begun.append(1))

    requests.look()
    assert begun == []
    (tmp_path / ASKED).touch()
    requests.look()
    requests.look()

    assert begun == [1]


def test_what_comes_during_a_reload_is_one_more_after_it(tmp_path: Path) -> None:
    begun: list[int] = []
    requests = ReloadRequests(tmp_path, lambda: begun.append(1))
    with (tmp_path / LOCK).open("w") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        for _ in range(3):
            (tmp_path / ASKED).touch()
            requests.look()
        assert begun == []

    requests.look()
    requests.look()

    assert begun == [1]
