"""Parts of the self-test can be chosen by name."""

from __future__ import annotations

import pytest

from loadtest import selftest
from loadtest.selftest import Finding
from loadtest.statuses import Status, UsageError


def test_the_named_parts_run_and_say_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {name: lambda name=name: Finding(name, name == "good", "this", "that") for name in ("good", "bad", "other")}
    monkeypatch.setattr(selftest, "PARTS", parts)

    assert selftest.main(["good"]) == Status.PASS
    assert selftest.main(["good", "bad"]) == Status.FAIL

    told = capsys.readouterr().out
    assert "2/2  bad" in told
    assert "1 of 2 are not as they must be" in told
    assert "other" not in told


def test_an_unknown_part_is_a_wrong_use_that_names_all() -> None:
    with pytest.raises(UsageError, match=r"stalls; expected some of .*, stall, .*search-finds-the-limit"):
        selftest.main(["stalls"])
