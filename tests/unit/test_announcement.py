"""When the start says the address: once all is there, or all but models that will not come."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from app.config import ROOT


@pytest.fixture(scope="module")
def announce() -> Any:
    """``apache/announce.py``, which is a program and no module of a package."""
    spec = importlib.util.spec_from_file_location("announce", ROOT / "apache" / "announce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("missing", "warm", "models"),
    [
        (["model a@1: failed: its weights are missing"], [True, False], "some, for good"),
        (["model a@1: manifest.toml cannot be read: Invalid value."], [True], "some, for good"),
        (["model a@1: loading"], [True, False], "some"),
        (["model a@1: failed: x", "model b@1: loading"], [True, False, False], "some"),
        (["model a@1: failed: x"], [False], "none"),
        (["model a@1: loading"], [], "none"),
        (["model a@1: failed: x", "web: no process of the web group is alive"], [True], "none"),
        (["engine: it has not started"], [], "none"),
    ],
)
def test_only_models_may_be_missing_and_not_all(
    announce: Any, missing: list[str], warm: list[bool], models: str
) -> None:
    report = {"missing": missing, "processes": [{"role": "engine", "models": [{"warm": each} for each in warm]}]}

    assert announce._models(report) == models
