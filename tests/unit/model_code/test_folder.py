"""One digest stands for all that a model is made of, and only regular files are part of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ModelLoadError
from app.model_code import folder
from tests.unit.model_code import folders


def test_digest_changes_with_every_name_and_byte(tmp_path: Path) -> None:
    model = folders.tickets(tmp_path)
    seen = [folder.digest(model)]
    (model / "queues.txt").write_text("billing\nshipping\nreturn\n")
    seen.append(folder.digest(model))
    (model / "queues.txt").rename(model / "queue.txt")
    seen.append(folder.digest(model))
    (model / "data").mkdir()
    (model / "data" / "empty").touch()
    seen.append(folder.digest(model))

    assert len(set(seen)) == 4


def test_digest_leaves_out_what_is_made_from_the_model(tmp_path: Path) -> None:
    model = folders.tickets(tmp_path)
    before = folder.digest(model)
    (model / "manifest.toml").write_text("x")
    for name in ("__pycache__", "environment"):
        (model / name).mkdir()
        (model / name / "file").write_text("x")

    assert folder.digest(model) == before


@pytest.mark.parametrize(
    "make",
    [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo, lambda path: path.symlink_to(path.parent)],
    ids=["link out", "pipe", "loop"],
)
def test_what_is_no_regular_file_is_refused_by_name(tmp_path: Path, make: Callable[[Path], None]) -> None:
    model = folders.tickets(tmp_path)
    make(model / "odd")

    with pytest.raises(ModelLoadError, match=r"odd is no regular file"):
        folder.digest(model)
