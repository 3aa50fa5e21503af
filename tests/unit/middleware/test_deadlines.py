"""The moment by which a caller wants an answer, counted from when Apache handed the request on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from app.errors import DeadlineExceededError, OptionError
from app.web.middleware import deadlines
from tests.fakes import make_settings


def environ(header: str | None = None, waited_seconds: float | None = None) -> dict[str, Any]:
    given: dict[str, Any] = {} if header is None else {"HTTP_X_REQUEST_TIMEOUT": header}
    return given if waited_seconds is None else {**given, "mod_wsgi.queue_start": time.time() - waited_seconds}


@pytest.mark.parametrize(
    ("header", "waited_seconds", "left_seconds"),
    [(None, None, 30), ("5", None, 5), (None, 12, 18), ("60", 45, 15), ("5", -3600, 5)],
)
def test_time_waited_for_a_thread_counts(
    tmp_path: Path, header: str | None, waited_seconds: float | None, left_seconds: float
) -> None:
    settings = make_settings(tmp_path, tmp_path, request_timeout_seconds=30.0)
    began = time.monotonic()

    found = deadlines.moment(environ(header, waited_seconds), settings)

    # The clocks of day and of this process do not tick together.
    assert -0.5 < found - began - left_seconds < time.monotonic() - began + 0.5


@pytest.mark.parametrize(("header", "waited_seconds"), [(None, 31), ("5", 6)])
def test_what_waited_too_long_is_not_begun(tmp_path: Path, header: str | None, waited_seconds: float) -> None:
    with pytest.raises(DeadlineExceededError, match="waited for a thread"):
        deadlines.moment(
            environ(header, waited_seconds), make_settings(tmp_path, tmp_path, request_timeout_seconds=30.0)
        )


def test_a_header_that_is_none_is_told_before_the_wait(tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        deadlines.moment(environ("soon", 100), make_settings(tmp_path, tmp_path))


@pytest.mark.parametrize("told", ["", "soon", "1.2.3"])
def test_without_a_word_of_apache_nothing_was_waited(told: str) -> None:
    assert deadlines.waited_seconds({"mod_wsgi.queue_start": told}) is None
    assert deadlines.waited_seconds({}) is None
