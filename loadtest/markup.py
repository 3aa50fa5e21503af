"""The words of a report's HTML: page, section, table, numbers. Everything that came from outside is escaped here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from loadtest import charts
from loadtest.charts import Series

STYLE = (Path(__file__).resolve().parent / "report.css").read_text()


def page(title: str, body: Sequence[str]) -> str:
    """A whole page that needs nothing else."""
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def section(title: str, lead: str, inside: str) -> str:
    """A part of the page; empty without content."""
    if not inside:
        return ""
    return f'<section><h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>{inside}</section>'


def banner(word: str, sentence: str, lead: str, cause: str = "") -> str:
    """The verdict's word, what it means, why, and who called."""
    why = f'<p class="cause">{escape(cause)}</p>' if cause else ""
    return (
        f'<section class="banner {word}"><span class="word">{word}</span>'
        f'<h2>{escape(_sentence(sentence.split(": ", 1)[-1]))}</h2>{why}<p class="lead">{escape(lead)}</p></section>'
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def with_legend(series: Sequence[Series], chart: str) -> str:
    """A chart below the names of its lines; empty without one."""
    return charts.legend([(each.name, each.colour) for each in series]) + chart if chart else ""


def table(heads: Sequence[str], names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; ``names`` are its first column, as text, ``lines`` the others, as HTML. Empty when there are none."""
    if not names:
        return ""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        f'<tr><td class="what">{escape(name)}</td>{"".join(f"<td>{cell}</td>" for cell in line)}</tr>'
        for name, line in zip(names, lines, strict=True)
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def pill(word: str) -> str:
    """A status as a coloured word."""
    return f'<span class="pill {word}">{word}</span>'


def soft(words: str) -> str:
    """Words that stand back."""
    return f'<span class="soft">{escape(words)}</span>'


def facts(lines: Sequence[tuple[str, str]]) -> str:
    """Names and values below each other."""
    cells = "".join(f'<tr><td class="what">{escape(name)}</td><td>{escape(value)}</td></tr>' for name, value in lines)
    return f'<div class="wide"><table>{cells}</table></div>'


def plain(value: Any) -> str:
    """A value of JSON as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {each}" for key, each in value.items()) or "–"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def value(value: float | None) -> float:
    """A time; infinite where nobody was answered."""
    return math.inf if value is None else value


def milliseconds(value: float) -> str:
    """A time in words."""
    return f"{value:.0f} ms" if math.isfinite(value) else "no answer" if math.isinf(value) else "–"


def share(value: float | None) -> str:
    """A share in percent."""
    return "not told" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """A number, one digit behind the point where that says something."""
    return "–" if value is None else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
