"""Greedy suppression of boxes that overlap better ones. Knows numpy only: it also serves models without torch.

The set-up puts a copy into the environment (requirements/environment), so it imports nothing of ours.
"""

from __future__ import annotations

import numpy as np


def suppress(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression; indices of the boxes kept, best first (int64 [K]).

    ``boxes`` [N, 4] as x_min, y_min, x_max, y_max; ``scores`` [N]. A box goes when its IoU with a better kept one is
    *above* the threshold, as in torchvision; of equal scores the earlier one counts as better. Boxes without area
    overlap nothing.
    """
    order = np.argsort(-scores, kind="stable")
    if iou_threshold >= 1:
        return order
    x_min, y_min, x_max, y_max = boxes[order].astype(np.float32, copy=False).T
    areas = np.maximum(x_max - x_min, 0) * np.maximum(y_max - y_min, 0)
    kept = []
    rest = np.arange(len(order))
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        width = np.minimum(x_max[best], x_max[rest]) - np.maximum(x_min[best], x_min[rest])
        height = np.minimum(y_max[best], y_max[rest]) - np.maximum(y_min[best], y_min[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        # shared / union > threshold, written without a division by an empty union.
        rest = rest[shared <= iou_threshold * (areas[best] + areas[rest] - shared)]
    return order[np.array(kept, dtype=np.int64)]
