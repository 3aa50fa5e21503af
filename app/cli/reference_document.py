"""``python -m app.cli.reference_document``: write docs/reference.md from the docstrings of package ``cask``."""

from __future__ import annotations

import inspect
import re
from typing import Any

import cask
from app.config import ROOT

DOCUMENT = "docs/reference.md"
HEAD = f"""# Reference of `cask`

Written by `make docs` from the docstrings of `cask/`; change them there. This is `cask.API_VERSION` {cask.API_VERSION}:
names, signatures and types stay as they are until that number changes. How they are used: [extending](extending.md).
"""
SECTIONS = {"Models": "cask.model", "Values": "cask.values", "Limits of values": "cask.annotations"}
FLASK = "Flask code"
# An annotation is a text, and is shown with the quotes of one.
QUOTED = re.compile(r"""((?:: |-> ))(?:'([^']*)'|"([^"]*)")""")


def document() -> str:
    """The text of docs/reference.md."""
    parts = [HEAD]
    for title, names in {**{title: _defined_in(module) for title, module in SECTIONS.items()}, FLASK: cask.WEB}.items():
        parts += [f"\n## {title}\n", *(f"\n### {name}\n\n{_described(name)}" for name in names)]
    return "".join(parts)


def _defined_in(module: str) -> list[str]:
    return [name for name in cask.__all__ if getattr(getattr(cask, name), "__module__", "") == module]


def _described(name: str) -> str:
    value = getattr(cask, name)
    text = f"```python\n{_signature(name, value)}\n```\n\n" if callable(value) else ""
    methods = [(key, each) for key, each in vars(value).items() if inspect.isfunction(each) and not key.startswith("_")]
    text += _paragraphs(value)
    for key, method in methods if inspect.isclass(value) else []:
        text += f"\n```python\n{_signature(f'{name}.{key}', method)}\n```\n\n{_paragraphs(method)}"
    return text


def _signature(name: str, value: Any) -> str:
    shown = QUOTED.sub(lambda found: found[1] + (found[2] or found[3]), str(inspect.signature(value)))
    shown = shown.removesuffix(" -> None") if inspect.isclass(value) else shown
    line = f"{name}{shown}"
    if len(line) <= 120:
        return line
    inside, _, returned = shown[1:].rpartition(")")
    parts = re.split(r", (?=\*|\w+:|\w+=)", inside)
    return "\n".join((f"{name}(", *(f"    {part}," for part in parts), f"){returned}"))


def _paragraphs(value: Any) -> str:
    """A docstring as Markdown: its examples as blocks of code."""
    found = []
    for paragraph in (inspect.getdoc(value) or "").split("\n\n"):
        text = paragraph.replace("``", "`")
        found.append(f"```python\n{text}\n```" if text.startswith(">>>") else text)
    return "\n\n".join(found) + "\n"


if __name__ == "__main__":
    (ROOT / DOCUMENT).write_text(document())
