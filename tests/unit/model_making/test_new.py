"""`flask model new`: each template is small, and what it writes is green as it stands."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.cli import model
from app.errors import ManifestError
from app.model_making import checks, templates

NEEDS = {"onnx": "onnxruntime", "timm": "timm"}
LONGEST_LINE, USER_LINES = 80, 20
CHECKS = ["added", "examples", "inputs", "batches", "callers", "memory", "speed"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(model.command, list(arguments))


def test_all_six_are_there() -> None:
    assert set(templates.known()) == {"text", "table", "image", "segment", "onnx", "timm"}
    assert all(templates.known().values())


@pytest.mark.parametrize("template", templates.known())
def test_template_is_green_as_written(tmp_path: Path, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A thousand calls of a network take long.
    monkeypatch.setattr(checks, "CALLS", 200)
    folder = tmp_path / "my-2nd"
    made = run("new", "my-2nd", "--template", template, "--folder", str(folder))
    code = (folder / "model.py").read_text()

    assert made.exit_code == 0, made.output
    assert f"make model-test MODEL={folder}" in made.stdout
    assert "class My2nd(Model):" in code
    assert sum(bool(line.strip()) for line in code.splitlines()) <= USER_LINES
    if template in NEEDS:
        assert NEEDS[template] in (folder / "requirements.txt").read_text()
        assert NEEDS[template] in made.stdout
        if not importlib.util.find_spec(NEEDS[template]):
            pytest.skip(f"{NEEDS[template]} is not installed; `make model-test` would fetch it from an index")
        (folder / "requirements.txt").unlink()
    tested = run("test", str(folder), "--json")

    assert tested.exit_code == 0, tested.output
    found = json.loads(tested.stdout)["checks"]
    assert [each["check"] for each in found] == CHECKS
    # What is written down is what it answers.
    assert found[1]["words"].split()[0] == found[1]["words"].split()[2]


def test_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "tickets"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    done = run("new", "tickets", "--folder", str(folder))

    assert done.exit_code == 1
    assert f"{folder} is there already; nothing was touched." in done.output
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "template", "said"),
    [
        ("Tickets", "text", "NAME is 'Tickets'"),
        ("../up", "text", "NAME is '../up'"),
        ("a", "txt", "TEMPLATE is 'txt'; there are: image, segment, table, text, onnx, timm"),
        ("a", "../text", "TEMPLATE is"),
    ],
)
def test_wrong_name_or_template_writes_nothing(tmp_path: Path, name: str, template: str, said: str) -> None:
    with pytest.raises(ManifestError, match=said.replace("(", r"\(")):
        templates.write(name, template, tmp_path / "new")

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["new", "--help"], ["test", "--help"]])
def test_help_fits_a_terminal(command: list[str]) -> None:
    lines = run(*command).stdout.splitlines()

    assert lines
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize(
    ("name", "expected"), [("tickets", "Tickets"), ("my-tickets.2", "MyTickets2"), ("2nd", "Model2nd"), ("a_b", "AB")]
)
def test_class_has_the_models_name(name: str, expected: str) -> None:
    assert templates.class_name(name) == expected
