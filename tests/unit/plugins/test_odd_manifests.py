"""Whatever stands in a plugin.toml, the answer is one line for its author, never a trace (airflow issue 55142)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import PluginError
from app.plugins import manifest

VALUES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-9, 9), st.floats(-9, 9), st.sampled_from(["", "x", "int", "list", "text", ">=1"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["a", "type", "default"]), inner)
    ),
    max_leaves=4,
)
# Mostly right, so that what is wrong stands alone.
SETTING = st.fixed_dictionaries(
    {"type": st.sampled_from(["int", "list", "text", "bool", "number"]), "meaning": st.just("Rows.")},
    optional=dict.fromkeys(("default", "unit", "choices", "at_least", "at_most", "secret"), VALUES),
)
TABLES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("version", "cask", "navigation", "settings", "content_security_policy", "wsgi"), VALUES),
        "settings": st.one_of(
            VALUES, st.dictionaries(st.sampled_from(["rows", "Rows", "x"]), st.one_of(SETTING, VALUES))
        ),
    },
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    return json.dumps(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("theirs") / "claims"
    made.mkdir()
    return made


@settings(max_examples=300, deadline=None, derandomize=True)
@given(table=TABLES)
def test_odd_values_are_refused_in_one_line_or_taken(folder: Path, table: dict[str, Any]) -> None:
    right = {"name": "claims", "version": "1", "cask": ">=1"}
    (folder / "plugin.toml").write_text(
        "".join(f"{key} = {toml(value)}\n" for key, value in {**right, **table}.items())
    )

    try:
        read = manifest.read(folder)
    except PluginError as error:
        assert str(folder) in error.message
        assert "\n" not in error.message
    else:
        assert read.name == "claims"
