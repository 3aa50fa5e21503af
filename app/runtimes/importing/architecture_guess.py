"""Which architecture is a file of weights for? Asked only when it does not fit the one that was named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache

import torch

from app.runtimes import architectures

LEAST_SHARE = 0.5

Shape = tuple[int, ...]


def nearest(shapes: Mapping[str, Shape]) -> tuple[str, float]:
    """The architecture most of whose tensors are among these names and shapes, under any prefix, and their share."""
    known: dict[str, list[tuple[str, Shape]]] = defaultdict(list)
    for name, shape in shapes.items():
        known[_tail(name)].append((name, shape))
    shares = [(name, _share(name, known)) for name in architectures.known()]
    return max(shares, key=lambda each: each[1])


def _share(architecture: str, known: Mapping[str, list[tuple[str, Shape]]]) -> float:
    wanted = _expected(architecture)
    hits = sum(
        any(shape == other and (full == name or full.endswith(f".{name}")) for full, other in known[_tail(name)])
        for name, shape in wanted
        if _tail(name) in known
    )
    # What the file has besides speaks against a smaller relative.
    return hits / max(len(wanted), sum(1 for rows in known.values() for _, shape in rows if shape), 1)


@cache
def _expected(architecture: str) -> list[tuple[str, Shape]]:
    """Its tensors with numbers; none where it cannot be built as it is, which makes it no neighbour."""
    try:
        # No memory and no numbers: names and shapes only.
        with torch.device("meta"):
            tensors = architectures.bare(architecture).state_dict()
    except Exception:  # noqa: BLE001 - whatever a builder raises
        return []
    return [(name, tuple(value.shape)) for name, value in tensors.items() if value.ndim]


def _tail(name: str) -> str:
    return ".".join(name.split(".")[-2:])
