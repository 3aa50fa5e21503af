"""Marks of ours in the schema of a model with code, read on both sides of the engine's socket. A leaf."""

from __future__ import annotations

# What a value becomes, and the sides and type of an array.
KIND, SHAPE, DTYPE = "x-cask-kind", "x-cask-shape", "x-cask-dtype"
# Kinds that travel as bytes beside the JSON.
BESIDE = ("image", "bytes")
# A picture of 8×8 pixels, so that examples in JSON can be sent as they stand.
EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mN8ViHHgA0wMeAAg1MCAC3HAYwwIk7yAAAAAElFTkSuQmCC"
)
