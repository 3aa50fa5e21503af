"""What is given to make is never read by make or by a shell: hostile values are values, and blanks are kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from app.config import ROOT
from tests import conftest

MAKEFILE = (ROOT / "Makefile").read_text()
VARIABLES = sorted(set(re.search(r"^GIVEN := (.*)$", MAKEFILE, re.M)[1].split()))  # type: ignore[index]
# Every target whose recipe takes something of what was given.
TARGETS = sorted(
    re.findall(
        r"^([a-z][a-z-]*):.*\n(?:\t(?!.*given\.sh).*\n)*\t@(?:app/given\.sh|\$\(MODEL_COMMAND\))", MAKEFILE, re.M
    )
)
HOSTILE = (
    "my w.pth",
    "x; touch pwned",
    "x' ; touch pwned; '",
    'x" ; touch pwned; "',
    "$(touch pwned)",
    "`touch pwned`",
    "$(shell touch pwned)",
    "$$(touch pwned)",
    "x && touch pwned",
    "x | touch pwned #",
    "*",
    "--force",
    "ünïcode …",
)
# In the place of every program: writes down its arguments, and does nothing else.
RECORDER = '#!/usr/bin/python3\nimport json, sys\nopen("asked.jsonl", "a").write(json.dumps(sys.argv[1:]) + "\\n")\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile beside stand-ins for all programs that it calls."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    programs = ("requirements/install.sh", "requirements/examples.sh", "tests/run.sh", "docker/steps/loadtest.sh")
    for name in (".venv/bin/python", *programs):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n" if name.startswith("requirements/") else RECORDER)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "app").mkdir()
    shutil.copy(ROOT / "app" / "given.sh", tmp_path / "app")
    return tmp_path


def make(checkout: Path, target: str, **given: str) -> tuple[int, list[str]]:
    """Exit status, and the arguments that the program got."""
    (checkout / "asked.jsonl").unlink(missing_ok=True)
    done = subprocess.run(
        ["make", "-s", target, *(f"{name}={value}" for name, value in given.items())],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=30,
    )
    asked = checkout / "asked.jsonl"
    rows = asked.read_text().splitlines() if asked.exists() else []
    return done.returncode, json.loads(rows[-1]) if rows else []


def test_all_targets_that_take_something_are_known() -> None:
    assert {"model-add", "model-promote", "loadtest", "loadtest-compare", "test", "config-diff", "doctor"} <= set(
        TARGETS
    )
    recipes = "".join(re.findall(r"^\t.*\n", MAKEFILE, re.M))
    # No recipe has a value in its text.
    assert set(re.findall(r"\$\((\w+)\)", recipes)) <= {
        "PY",
        "INSTALL",
        "MODEL_COMMAND",
        "JOIN_OPTIONS",
        "RATE_OPTIONS",
        "MAKEFILE_LIST",
    }


@pytest.mark.parametrize("target", TARGETS)
def test_no_value_of_any_variable_runs_a_command(checkout: Path, target: str) -> None:
    for value in HOSTILE:
        make(checkout, target, **dict.fromkeys((*VARIABLES, "PORT", "ENV", "PY", "MODEL_COMMAND"), value))

        assert not (checkout / "pwned").exists(), value


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_arrives_as_it_was_typed(checkout: Path, value: str) -> None:
    status, asked = make(checkout, "model-add", ARCH="resnet50", WEIGHTS=value, LABELS=value, NAME="a", VERSION="1")

    assert status == 0
    assert asked[-5:] == ["--arch=resnet50", f"--weights={value}", f"--labels={value}", "--name=a", "--version=1"]


def test_options_are_words_and_quotes_hold_them_together(checkout: Path) -> None:
    options = """--size 64 --options '{"a": [1, 2]}' --description "two words; $(touch pwned) *" """

    asked = make(checkout, "model-add", OPTIONS=options)[1]

    assert asked[4:] == [
        *("--size", "64", "--options", '{"a": [1, 2]}'),
        "--description",
        "two words; $(touch pwned) *",
    ]
    assert not (checkout / "pwned").exists()


def test_a_quote_that_is_not_closed_is_refused(checkout: Path) -> None:
    assert make(checkout, "model-add", OPTIONS="--description 'x") == (2, [])


def test_what_is_not_given_is_left_out_or_has_its_default(checkout: Path) -> None:
    assert make(checkout, "model-versions")[1][-1] == "versions"
    assert make(checkout, "config-diff", B="test")[1][-2:] == ["dev", "test"]
    assert make(checkout, "loadtest-compare", BEFORE="a b", AFTER="c")[1][-5:] == ["--before", "a", "b", "--after", "c"]
    assert make(checkout, "loadtest", SECONDS="30")[1][-2:] == ["run", "--seconds=30"]
    assert make(checkout, "test", PART="unit,apache")[1] == ["unit,apache"]


def test_a_switch_is_given_by_yes_alone(checkout: Path) -> None:
    given = {"MODEL": "m", "VERSION": "2"}

    assert make(checkout, "model-promote", **given, BUILD="yes")[1][-4:] == ["promote", "m", "2", "--build"]
    assert make(checkout, "model-promote", **given, BUILD="no", ANYWAY="yes")[1][-3:] == ["m", "2", "--anyway"]
    assert make(checkout, "model-canary", **given, SHARE="5", ANYWAY="yes")[1][-2:] == ["--share=5", "--anyway"]
    for value in ("maybe", "--build", "yes; touch pwned", "*"):
        assert make(checkout, "model-promote", **given, BUILD=value) == (2, []), value
    assert not (checkout / "pwned").exists()


def test_programs_can_read_what_a_target_prints_below_another_target(checkout: Path) -> None:
    (checkout / "outer.mk").write_text("include Makefile\nouter:\n\t@bash -c 'make model-list OPTIONS=--json'\n")
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\necho '{}'\n")
    (checkout / "requirements/install.sh").write_text("#!/bin/sh\necho 'Set-up for serve'\n")

    done = subprocess.run(["make", "-f", "outer.mk", "outer"], cwd=checkout, capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stdout) == (0, "{}\n")
    assert "Set-up" in done.stderr


def test_what_make_was_given_stays_out_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "GIVEN_PART", "ENV", "PORT", "SECRET_KEY"):
        monkeypatch.setenv(name, "left over")

    conftest.pytest_configure()

    assert "left over" not in os.environ.values()
