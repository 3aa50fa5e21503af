"""What a run of the load test may end with where a test is about something else than the machine's speed."""

from __future__ import annotations

from loadtest.statuses import Status

# A busy machine answers in waves; requests that wait together count as few, too few to decide by.
NOTHING_AGAINST = (Status.PASS, Status.UNDECIDED)
