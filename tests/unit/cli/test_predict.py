"""What ``flask predict`` prints of answers without labels and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app import tasks
from app.cli import predict, terminal
from app.cli.service import Reply
from app.tasks.embed import Embed


class Asked:
    """A service that answers a vector."""

    def ask(self, path: str, body: bytes | None = None) -> Reply:
        return Reply(200, Embed.example)


def predicted(tmp_path: Path) -> predict.Predicted:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"")
    ask = predict._question(Asked(), {**Embed.example["model"], "task": "embed"}, "", None, None)  # type: ignore[arg-type]
    return ask(file)


@pytest.mark.parametrize(
    ("show", "words"),
    [
        (lambda one: predict._print_table([one]), "[0.6, 0.0, -0.8]"),
        (lambda one: predict._print_csv(iter([one])), '"[0.6, 0.0, -0.8]"'),
        (lambda one: predict._print_lines(iter([one])), json.dumps(Embed.example["results"][0]["embedding"])),
    ],
)
def test_rows_without_labels_are_printed_as_they_are(
    tmp_path: Path, show: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(predicted(tmp_path))
    assert words in capsys.readouterr().out


def test_number_of_rows_of_a_task_that_counts_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embed, "count_option", "")
    row = {"name": "parts", "version": "1", "task": "embed"}

    with pytest.raises(terminal.Failure, match="parts@1 answers embed, of which nobody can ask for 3"):
        predict._question(Asked(), row, "", 3, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", tasks.ALL, ids=tasks.OFFERED)
def test_rows_that_count_as_scored_have_a_label_and_a_score(task: tasks.Task) -> None:
    assert all({"label", "score"} <= dict(row).keys() for row in task.scored(task.example["results"][0]))
