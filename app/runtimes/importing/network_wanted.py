"""What is asked of a conversion, and what it answers: values that cross to the process apart as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from app.models.manifests import InputSpec

# In the place of a file: weights of a fixed seed, to try the service.
RANDOM = "random"
RANDOM_SEED = 20260101


@dataclass(frozen=True)
class Wanted:
    """How a file is to be read. Empty texts and zeros are left to the file, then to what is usual for the task.

    ``labels``: how many there are; 0 where nobody gave any. ``mean`` and ``std`` count as ``values`` says. ``samples``:
    a folder with pictures for the comparison. ``options``: those of the task's head. ``architecture``: by name, where
    the file holds weights only, and ``builder_options`` what its builder is given.
    """

    file: str
    kind: str
    task: str
    labels: int = 0
    values: str = ""
    layout: str = ""
    channels: str = "rgb"
    input_kind: str = ""
    size: int = 0
    resize_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    output: str = ""
    samples: str = ""
    operators: tuple[str, ...] = ()
    opset: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    architecture: str = ""
    builder_options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Wanted:
        """The value in what ``to_json`` made."""
        table = json.loads(text)
        tuples = {name: tuple(table[name]) for name in ("mean", "std", "operators")}
        return cls(**{**table, **tuples})

    def completed(self, usual: Mapping[str, Any]) -> Wanted:
        """With what the network itself says, by field, where nobody said otherwise."""
        return replace(self, **{name: value for name, value in usual.items() if not getattr(self, name)})


@dataclass(frozen=True)
class Converted:
    """What was made. ``outputs``: how many labels it scores, 0 where that cannot be told. ``is_single``: it computes
    one picture at a time. ``options``: for the manifest's architecture_options. ``said``: what people should know.
    """

    input: InputSpec
    outputs: int
    is_single: bool
    options: dict[str, Any]
    said: tuple[str, ...]

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Converted:
        """The value in the table that ``to_json`` wrote."""
        spec = {**table["input"], **{name: tuple(table["input"][name]) for name in ("mean", "std")}}
        return cls(**{**table, "input": InputSpec(**spec), "said": tuple(table["said"])})
