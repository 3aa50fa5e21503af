"""What models can be asked. To add a task: write its file, and name it in ``ALL``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from app.inference.results import EXPLAIN, Answer, ExplainOptions, Explanation, Options, to_dict
from app.tasks import promises
from app.tasks.base import Task
from app.tasks.classify import Classify
from app.tasks.detect import Detect
from app.tasks.embed import Embed
from app.tasks.instances import Instances
from app.tasks.segment import SegmentTask

# In the order in which forms offer them; the first one is where a page starts.
ALL = promises.instances((Detect, Classify, SegmentTask, Instances, Embed))
BY_NAME: Mapping[str, Task] = {task.name: task for task in ALL}
OFFERED = tuple(BY_NAME)
MERGED = tuple(task for task in ALL if task.is_merged)
# In alphabetical order, as descriptions and metrics list them.
NAMES = tuple(sorted(BY_NAME))

# The tensor of an image that travels to the engine: uint8 [height, width, 3].
IMAGE = "image"

if TYPE_CHECKING:
    import numpy as np

    Named = str
    MergedName = str
else:
    # Types for pydantic, which describes and refuses what is not among them.
    Named = Literal[NAMES]
    MergedName = Literal[tuple(task.name for task in MERGED)]


def of_row(row: Mapping[str, Any]) -> Task:
    """The task whose answer a row of results holds, by the key of its rows. Raises StopIteration for none."""
    return next(task for task in ALL if task.rows in row)


def answer_from_json(asked: str, rows: Sequence[dict[str, Any]]) -> Answer:
    """Rebuild an answer from what ``results.to_dict`` made of it. ``asked``: a task's name, or EXPLAIN.

    Raises KeyError when a field is missing, or for another task.
    """
    if asked == EXPLAIN:
        return [Explanation(row["label"], row["score"], row["method"], row["map"]) for row in rows]
    return BY_NAME[asked].answer_from_json(rows)


def options_from_json(asked: str, fields: dict[str, Any]) -> Options:
    """Rebuild options from what ``results.to_dict`` made of them.

    Raises TypeError on a field that does not exist, KeyError for another task.
    """
    if asked == EXPLAIN:
        return ExplainOptions(**fields)
    found: Options = BY_NAME[asked].options(**fields)
    return found


def to_wire(asked: str, answer: Answer) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray | bytes]]:
    """An answer of the engine as rows of JSON, and what follows them. ``asked``: a task's name, or EXPLAIN."""
    return ([to_dict(row) for row in answer], {}) if asked == EXPLAIN else BY_NAME[asked].to_wire(answer)


def from_wire(asked: str, rows: Sequence[dict[str, Any]], arrays: Mapping[str, Any]) -> Answer:
    """The answer in what ``to_wire`` made. Raises KeyError, TypeError, ValueError."""
    return answer_from_json(asked, rows) if asked == EXPLAIN else BY_NAME[asked].from_wire(rows, arrays)
