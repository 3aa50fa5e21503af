"""What your own models and Flask code import from Cask. The only public part of the tree; all else may change.

Names, signatures and types here stay as they are while ``API_VERSION`` is the same. Loads neither Flask nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cask.annotations import Choice, Labels, Range, Shape, Text
from cask.model import Model, Refused, batch
from cask.values import Box, Detection, Embedding, Image, Label, Mask

if TYPE_CHECKING:
    from cask.web import count, limit, predict, public, scope, settings

API_VERSION = 1
# For Flask code; models need none of it.
WEB = ("count", "limit", "predict", "public", "scope", "settings")

__all__ = [
    "API_VERSION",
    "Box",
    "Choice",
    "Detection",
    "Embedding",
    "Image",
    "Label",
    "Labels",
    "Mask",
    "Model",
    "Range",
    "Refused",
    "Shape",
    "Text",
    "batch",
    "count",
    "limit",
    "predict",
    "public",
    "scope",
    "settings",
]


def __getattr__(name: str) -> Any:
    if name not in WEB:
        from cask.renamed import NAMES

        if new := NAMES.get(name):
            return globals()[new] if new in globals() else __getattr__(new)
        raise AttributeError(f"cask has no {name!r}; it has {', '.join(__all__)}.")
    from cask import web

    return getattr(web, name)
