"""`make model-test` is green for a right model and red, with place and reason, for each planted fault."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli import code_models
from app.model_code import adding
from app.model_code.adding import NewCode
from app.model_making import samples
from tests.unit.model_code.test_environments import wheel

HEAD = """
import ctypes, os, sys, time
from typing import Annotated

import numpy as np

from cask import *


class Mine(Model):
    kept = []

    @batch(max_size=8)
    def predict(self, text: list[Annotated[str, Text(min_length=1, max_length=20)]], *, top: int = 1) -> list[int]:
"""
RIGHT = "return [len(each) for each in text]"
# What is planted, the check that finds it, and what is said.
FAULTS: dict[str, tuple[str, str, str]] = {
    "another order": ("return sorted(map(len, text))", "batches", "alone an item is answered otherwise than as number"),
    "a list too short": (
        "return [*{each: len(each) for each in text[:7]}.values()]",
        "batches",
        "predict returned 7 answers for 8 items",
    ),
    "a leak of 1 MB a call": (f"self.kept.append(bytearray(1_000_000)); {RIGHT}", "memory", "MB each"),
    "a crash in C": (
        "if len(text[0]) > 12: ctypes.string_at(0)\n        " + RIGHT,
        "inputs",
        "model.py, line 14: The model mine@1 gave no answer: its process ended while it computed (Segmentation fault)",
    ),
    "a hang": (
        "time.sleep(len(text[0]) // 15 * 600)\n        " + RIGHT,
        "inputs",
        "model.py, line 14: The model mine@1 gave no answer: it did not answer within 6 s",
    ),
    "an exception": (
        "return [10 // len(each.strip()) for each in text]",
        "inputs",
        "model.py, line 14: ZeroDivisionError: integer division or modulo by zero; asked {\"text\": \" \"",
    ),
    "chance": ("return [time.time_ns() % 1000 for each in text]", "examples", "is not answered as stored"),
    "state of a call": (
        "self.kept.append(text[0]); return [len(self.kept) // 90 + len(each) for each in text]",
        "callers|batches",
        "",
    ),
}  # fmt: skip


def write(folder: Path, code: str, **examples: Any) -> Path:
    (folder / "examples").mkdir(parents=True)
    (folder / "model.py").write_text(
        HEAD.lstrip("\n") + textwrap.indent(code, " " * 8).replace(" " * 16, " " * 8) + "\n"
    )
    for name, content in (examples or {"one": {"text": "one"}, "two": {"text": "three four"}}).items():
        (folder / "examples" / f"{name.replace('_expected', '.expected')}.json").write_text(json.dumps(content))
    return folder


def run(folder: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and verdicts."""
    done = CliRunner().invoke(code_models.test, [str(folder), "--json", "--timeout-seconds", "6", *options])
    return done.exit_code, json.loads(done.stdout)["checks"] if done.stdout.startswith("{") else []


def test_right_model_is_green(tmp_path: Path) -> None:
    code, found = run(write(tmp_path / "mine", RIGHT))

    assert (code, {each["verdict"] for each in found}) == (0, {"ok"}), found
    assert len(found) == 7


@pytest.mark.parametrize("what", FAULTS)
def test_planted_fault_is_red_where_it_belongs(tmp_path: Path, what: str) -> None:
    fault, check, said = FAULTS[what]
    code, found = run(write(tmp_path / "mine", fault))
    failed = [each for each in found if each["verdict"] == "fail"]

    assert code == 1
    assert [each["check"] in check.split("|") for each in failed] == [True], found
    assert said in failed[0]["words"]
    assert str(tmp_path) not in failed[0]["words"]
    assert failed[0]["hint"]
    after = found[found.index(failed[0]) + 1 :]
    assert {each["verdict"] for each in after} <= {"skip"}


def test_import_that_hangs_is_red_with_its_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", RIGHT)
    (folder / "model.py").write_text("import time\n\n\ntime.sleep(600)\n")
    code, found = run(folder, "--load-seconds", "8")

    assert (code, [each["verdict"] for each in found]) == (1, ["fail"])
    assert found[0]["words"] == "mine@1: model.py, line 4: it did not load within 8 s"


def test_example_that_is_answered_otherwise_is_red_until_it_is_written_down(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", RIGHT, one={"text": "one"}, one_expected=4)
    code, found = run(folder)

    assert (code, found[0]["check"], found[0]["verdict"]) == (1, "examples", "fail")
    assert "examples/one.json is not answered as stored: the answer is 3, stored is 4" in found[0]["words"]
    _, found = run(folder, "--write-expected")
    assert found[1]["words"] == "1 answered, written beside them"
    assert json.loads((folder / "examples" / "one.expected.json").read_text()) == 3


def test_samples_reach_the_edges_of_each_type_and_are_the_same_again() -> None:
    signature = {
        "inputs": {
            "text": {"type": "string", "maxLength": 30},
            "n": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "options": {"top": {"type": "integer", "minimum": 1, "maximum": 5, "default": 1}, "how": {"enum": ["a", "b"]}},
    }
    found = list(samples.fitting(signature))
    wrong = list(samples.wrong(signature, found[0]))

    assert {"", "a" * 30, "\x00\x1f"} <= {each["text"] for each in found}
    assert {None, 0, 2**63 - 1} <= {each["n"] for each in found}
    assert {each["top"] for each in found if "top" in each} == {1, 2, 3, 5}
    assert {name for name, _ in wrong} == {"text", "n", "top", "how", "an unknown name", "no text"}
    assert found == list(samples.fitting(signature))


def test_added_version_is_tested_from_its_lock_and_as_it_was_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, wheels, store = tmp_path / "source", tmp_path / "wheels", tmp_path / "store"
    wheels.mkdir()
    wheel(wheels, "words_for_tests", "1.0", "WORD = 'one'\n")
    write(source, RIGHT, one={"text": "one"})
    code = "import words_for_tests\nfrom cask import Model\n\n\nclass Mine(Model):\n"
    predict = (
        "    def predict(self, text: list[str]) -> list[str]:\n        return [words_for_tests.WORD for _ in text]\n"
    )
    (source / "model.py").write_text(code + predict)
    (source / "requirements.txt").write_text(f"--no-index\n--find-links {wheels}\nwords_for_tests\n")
    manifest = adding.add(NewCode(source, "mine", "1"), store)
    # Resolved anew, it would answer otherwise than its example says.
    wheel(wheels, "words_for_tests", "2.0", "WORD = 'two'\n")
    monkeypatch.setenv("MODELS_DIR", str(store))

    def test(name: str) -> Result:
        return CliRunner().invoke(code_models.test, [name, "--json"])

    green = test("mine@1")
    assert green.exit_code == 0, green.output
    (manifest.directory / "model.py").write_text(code + predict + "# changed\n")
    red = test("mine")
    assert red.exit_code == 1
    assert "was altered after it was added" in json.loads(red.stdout)["checks"][0]["words"]
    assert "no folder with a model.py, nothing in drafts/, and not in the store" in test("nowhere").output
