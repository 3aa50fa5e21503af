"""Pictures to send: the samples of the model store, and bytes that differ while the pixels stay the same."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from loadtest.statuses import UsageError

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "models" / "samples"
# Some more that are small and different from each other, so that a mixed-up answer shows.
MORE_TO_CLASSIFY = 12


@dataclass(frozen=True)
class Picture:
    """One JPEG, cut where a comment may stand. ``task``: what it is meant for; ``truth``: its label, or empty."""

    name: str
    task: str
    head: bytes
    tail: bytes
    truth: str = ""

    @property
    def data(self) -> bytes:
        """The file as it is."""
        return self.head + self.tail

    def with_nonce(self, nonce: int) -> bytes:
        """The same pixels in bytes that nobody has seen: a comment segment with the number (ITU T.81, B.2.4.5)."""
        return self.head + comment(nonce) + self.tail

    def base64_with_nonce(self, nonce: int | None) -> bytes:
        """Either form as base64, of which only the few first bytes are encoded anew."""
        # The comment is padded until what is before the tail is a multiple of three bytes long.
        if nonce is None:
            return base64.b64encode(self.data)
        head = self.head + comment(nonce, -(len(self.head) + len(comment(0))) % 3)
        return base64.b64encode(head) + self._tail_base64

    @cached_property
    def _tail_base64(self) -> bytes:
        return base64.b64encode(self.tail)


def meant_for(task: str, pictures: Sequence[Picture]) -> list[int]:
    """The numbers of the pictures that a task is sent: those made for it, or all where none is."""
    made = [number for number, picture in enumerate(pictures) if picture.task == task]
    return made or list(range(len(pictures)))


def comment(nonce: int, padding: int = 0) -> bytes:
    """A JPEG comment segment that holds a number as hexadecimal digits."""
    text = b"%016x" % nonce + b" " * padding
    return b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text


def read_picture(path: Path, task: str, truth: str = "") -> Picture:
    """A JPEG file. Raises UsageError when it is none."""
    data = path.read_bytes()
    if data[:2] != b"\xff\xd8" or data[2] != 0xFF:
        raise UsageError(f"{path} is no JPEG file; the comment with a number needs one.")
    # JFIF and Exif want to be first; a comment stands behind them.
    cut = 4 + int.from_bytes(data[4:6], "big") if 0xE0 <= data[3] <= 0xEF else 2
    return Picture(path.name, task, data[:cut], data[cut:], truth)


def samples(folder: Path = SAMPLES) -> list[Picture]:
    """The sample pictures of the model store, and a few of the models' own."""
    described = json.loads((folder / "index.json").read_text())
    found = [
        read_picture(
            folder / each["file"], each["task"], each["objects"][0]["label"] if each["task"] == "classify" else ""
        )
        for each in described
    ]
    more = sorted(folder.parent.glob("*classif*/*/samples/*.jpg"))[:MORE_TO_CLASSIFY]
    return found + [read_picture(path, "classify") for path in more]
