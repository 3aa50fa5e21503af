from pathlib import Path
from typing import Annotated

from cask import Label, Model, Range, Refused, Text, batch


class Template(Model):
    """Sorts a text by the words in it."""

    def load(self, folder: Path) -> None:
        lines = (folder / "words.txt").read_text().splitlines()
        self.words = {label: set(words.split()) for label, words in (line.split(":") for line in lines)}

    @batch(max_size=16)
    def predict(
        self, text: list[Annotated[str, Text(max_length=4000)]], *, top: Annotated[int, Range(1, 5)] = 1
    ) -> list[list[Label] | Refused]:
        return [self.sort(each, top) if each.strip() else Refused("the text is empty") for each in text]

    def sort(self, text: str, top: int) -> list[Label]:
        words = text.lower().split()
        found = [Label(label, sum(word in known for word in words) / len(words)) for label, known in self.words.items()]
        return sorted(found, key=lambda label: -label.score)[:top]
