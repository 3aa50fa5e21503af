"""What your own models and Flask code import from Cask. The only public part of the tree; all else may change.

Names, signatures and types here stay as they are while ``API_VERSION`` is the same. Loads neither Flask nor torch.
"""

from cask.annotations import Choice, Labels, Range, Shape, Text
from cask.model import Model, Refused, batch
from cask.values import Box, Detection, Embedding, Image, Label, Mask

API_VERSION = 1

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
]
