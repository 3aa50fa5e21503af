"""Folders of models with code, as users write them."""

from __future__ import annotations

import textwrap
from pathlib import Path

TICKETS = '''
    from pathlib import Path
    from typing import Annotated

    from cask import Label, Model, Range, Refused, Text, batch


    class Tickets(Model):
        """Sorts a support ticket into a queue."""

        def load(self, folder: Path) -> None:
            self.queues = (folder / "queues.txt").read_text().split()

        @batch(max_size=16)
        def predict(
            self, text: list[Annotated[str, Text(max_length=40)]], *, top: Annotated[int, Range(1, 5)] = 1
        ) -> list[list[Label] | Refused]:
            print("somebody asks")
            return [self.sort(each, top) if each.strip() else Refused("the text is empty") for each in text]

        def sort(self, text: str, top: int) -> list[Label]:
            words = text.split()
            found = [Label(queue, words.count(queue) / len(words)) for queue in self.queues]
            return sorted(found, key=lambda label: -label.score)[:top]
'''


def write(folder: Path, code: str, **others: str) -> Path:
    """A folder with this model.py; ``others``: texts beside it, by name without ``.txt``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(textwrap.dedent(code).lstrip())
    for name, text in others.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def tickets(folder: Path) -> Path:
    return write(folder, TICKETS, queues="billing\nshipping\nreturns\n")
