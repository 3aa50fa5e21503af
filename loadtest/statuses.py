"""What a load test ends with: a word for people, an exit status for programs. A leaf."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Exit status of every command here. Only PASS is 0."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    INVALID = 3
    REFUSED = 4
    REGRESSION = 5
    UNDECIDED = 6


class LoadTestError(Exception):
    """The command ends without a verdict on the server; ``status`` says how."""

    status = Status.INVALID


class UsageError(LoadTestError):
    """A profile, a limit or an option is unknown or wrong."""

    status = Status.USAGE


class RefusedError(LoadTestError):
    """This target may not be loaded, or not so hard, or not without a person's word."""

    status = Status.REFUSED
