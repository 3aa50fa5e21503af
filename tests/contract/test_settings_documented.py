"""Every setting has its sentence, and docs/configuration.md says what the code says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from app import config
from app.cli import settings_document

DOCUMENT = config.ROOT / config.DOCUMENT


def test_document_is_current() -> None:
    assert DOCUMENT.read_text() == settings_document.text(), "Run `python -m app.config docs`."


@pytest.mark.parametrize("one", config.DECLARATIONS.values(), ids=lambda one: one.name)
def test_each_setting_is_declared_in_full(one: config.Declaration) -> None:
    assert one.sentence.endswith(".")
    assert one.section
    assert one.expected
    assert f"| `{one.name}` |" in DOCUMENT.read_text()


@pytest.mark.parametrize(
    ("ending", "unit"), [("_SECONDS", "seconds"), ("_MS", "milliseconds"), ("_BYTES", "bytes"), ("_PIXELS", "pixels")]
)
def test_unit_in_a_name_is_the_declared_unit(ending: str, unit: str) -> None:
    named = [one for one in config.DECLARATIONS.values() if one.name.endswith(ending)]

    assert named
    assert all(one.unit == unit for one in named)


def test_prefixes_are_all_in_use() -> None:
    names = [one.name for one in config.DECLARATIONS.values()]

    assert all(any(name.startswith(prefix) for name in names) for prefix in config.OUR_PREFIXES)


def test_document_names_no_path_of_this_machine() -> None:
    assert str(config.ROOT) not in DOCUMENT.read_text()


def test_nothing_else_in_the_app_reads_the_environment() -> None:
    # What runs a model takes a variable of ours away from it; a plugin may change none.
    left_out = {config.ROOT / "app/model_code/child.py", config.ROOT / "app/plugins/shared.py"}
    paths = sorted((config.ROOT / "app").rglob("*.py"))
    readers = [path for path in paths if path not in left_out and _reads_environment(path)]

    assert [path.name for path in readers if path.parent != config.ROOT / "app/config"] == []


def _reads_environment(path: Path) -> bool:
    words = {"environ", "environb", "getenv", "getenvb"}
    tree = ast.parse(path.read_text())
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    imported = {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for name in node.names
    }
    return bool(words & (attributes | imported))
