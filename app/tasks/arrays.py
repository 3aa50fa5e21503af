"""Answers of several images as arrays, image × rank; shorter answers are filled up with empty labels and zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def labels_and_scores(answers: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
    """``labels``, texts, and ``scores``, float32."""
    shape = len(answers), _longest(answers)
    labels, scores = np.full(shape, "", object), np.zeros(shape, np.float32)
    for number, answer in enumerate(answers):
        labels[number, : len(answer)] = [row.label for row in answer]
        scores[number, : len(answer)] = [row.score for row in answer]
    return {"labels": labels, "scores": scores}


def boxes(answers: Sequence[Sequence[Any]]) -> np.ndarray:
    """x_min, y_min, x_max, y_max of each row, float32 [images, ranks, 4]."""
    found = np.zeros((len(answers), _longest(answers), 4), np.float32)
    for number, answer in enumerate(answers):
        for rank, row in enumerate(answer):
            found[number, rank] = row.box.x_min, row.box.y_min, row.box.x_max, row.box.y_max
    return found


def counts(answers: Sequence[Sequence[Any]]) -> np.ndarray:
    """How many rows each answer has, int32."""
    return np.array([len(answer) for answer in answers], np.int32)


def _longest(answers: Sequence[Sequence[Any]]) -> int:
    return max(len(answer) for answer in answers)
