"""Charts as inline SVG: lines over two axes, stacked bars. Colours are classes of the page's style. No script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH_PX, HEIGHT_PX = 760, 250
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 58, 24, 12, 40
TICKS = 5
BAR_PX, BAR_STEP_PX, BAR_LABEL_PX = 26, 46, 150


@dataclass(frozen=True)
class Series:
    """One line: its name, its colour (a class), and its points; points that are no numbers break the line."""

    name: str
    colour: str
    xs: Sequence[float]
    ys: Sequence[float]
    has_dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A dashed line across the chart at one value of an axis, with a word on it."""

    value: float
    words: str
    is_vertical: bool = False


@dataclass(frozen=True)
class Axis:
    """What stands along a side; ``ticks`` (place and word) replace the computed ones; ``ends`` are always on it."""

    title: str
    is_log: bool = False
    ticks: Sequence[tuple[float, str]] = field(default_factory=tuple)
    ends: Sequence[float] = field(default_factory=tuple)


class Scale:
    """From values to pixels."""

    def __init__(self, low: float, high: float, begin_px: float, end_px: float, is_log: bool) -> None:
        self._log = is_log
        self.low, self.high = low, high if high > low else low + 1
        self._begin, self._end = begin_px, end_px

    def px(self, value: float) -> float:
        """Where a value lies."""
        low, high, at = (math.log10(each) if self._log else each for each in (self.low, self.high, value))
        return self._begin + (at - low) / (high - low) * (self._end - self._begin)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values within the scale."""
        if self._log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 3 else (1,)
            values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        else:
            step = round_step((self.high - self.low) / TICKS)
            values = [step * number for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [(value, short(value)) for value in values if self.low <= value <= self.high]


def round_step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)


def short(value: float) -> str:
    """A tick's word: 1 500 → 1.5k."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:.6g}"


def lines(title: str, x: Axis, y: Axis, series: Sequence[Series], marks: Sequence[Mark] = ()) -> str:
    """A chart of lines; empty when there is nothing to show."""
    points = [(a, b) for each in series for a, b in zip(each.xs, each.ys, strict=True) if _is_shown(a, b, x, y)]
    if not points:
        return ""
    xs = [a for a, _ in points] + [a for a, _ in x.ticks] + list(x.ends)
    ys = [b for _, b in points] + [
        mark.value for mark in marks if not mark.is_vertical and (mark.value > 0 or not y.is_log)
    ]
    lowest = min(ys) * 0.7 if y.is_log else 0.0
    across = Scale(min(xs), max(xs), LEFT_PX, WIDTH_PX - RIGHT_PX, x.is_log)
    up = Scale(lowest, max(ys) * (1.3 if y.is_log else 1.08), HEIGHT_PX - BOTTOM_PX, TOP_PX, y.is_log)
    return _svg(
        title,
        HEIGHT_PX,
        [
            *_axes(across, up, x, y),
            *(_mark(mark, across, up) for mark in marks),
            *(_line(each, across, up, x, y) for each in series),
        ],
    )


def legend(series: Sequence[tuple[str, str]]) -> str:
    """Names beside their colours, as HTML."""
    keys = "".join(f'<span class="key {colour}"><i></i>{escape(name)}</span>' for name, colour in series)
    return f'<p class="legend">{keys}</p>'


def stacks(title: str, unit: str, rows: Sequence[tuple[str, Sequence[tuple[str, str, float]]]]) -> str:
    """Bars made of parts, one a row: (label, [(part, colour, value)])."""
    longest = max((sum(value for *_, value in parts) for _, parts in rows), default=0.0)
    if longest <= 0:
        return ""
    scale = (WIDTH_PX - BAR_LABEL_PX - 90) / longest
    shapes = []
    for number, (label, parts) in enumerate(rows):
        top, left = TOP_PX + number * BAR_STEP_PX, float(BAR_LABEL_PX)
        shapes.append(f'<text x="{BAR_LABEL_PX - 12}" y="{top + 18}" text-anchor="end">{escape(label)}</text>')
        for name, colour, value in parts:
            width = value * scale
            told = f"<title>{escape(name)}: {value:.1f} {unit}</title>"
            place = f'x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BAR_PX}"'
            shapes.append(f'<rect class="fill {colour}" {place}>{told}</rect>')
            if width > 34:
                shapes.append(f'<text class="inside" x="{left + width / 2:.1f}" y="{top + 18}">{value:.1f}</text>')
            left += width
        total = sum(value for *_, value in parts)
        shapes.append(f'<text x="{left + 8:.1f}" y="{top + 18}">{total:.1f} {unit}</text>')
    return _svg(title, TOP_PX + len(rows) * BAR_STEP_PX, shapes)


def _svg(title: str, height: int, shapes: Sequence[str]) -> str:
    inside = "\n".join(shapes)
    return (
        f'<svg viewBox="0 0 {WIDTH_PX} {height}" role="img" aria-label="{escape(title, quote=True)}">\n{inside}\n</svg>'
    )


def _is_shown(a: float, b: float, x: Axis, y: Axis) -> bool:
    return math.isfinite(a) and math.isfinite(b) and (a > 0 or not x.is_log) and (b > 0 or not y.is_log)


def _axes(across: Scale, up: Scale, x: Axis, y: Axis) -> list[str]:
    bottom, right = HEIGHT_PX - BOTTOM_PX, WIDTH_PX - RIGHT_PX
    shapes = []
    for value, word in y.ticks or up.ticks():
        at = up.px(value)
        shapes.append(f'<line class="grid" x1="{LEFT_PX}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        shapes.append(f'<text x="{LEFT_PX - 8}" y="{at + 4:.1f}" text-anchor="end">{word}</text>')
    for value, word in x.ticks or across.ticks():
        shapes.append(f'<text x="{across.px(value):.1f}" y="{bottom + 17}" text-anchor="middle">{word}</text>')
    shapes.append(f'<line class="axis" x1="{LEFT_PX}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    shapes.append(f'<text class="soft" x="{right}" y="{bottom + 34}" text-anchor="end">{escape(x.title)}</text>')
    shapes.append(f'<text class="soft" x="{LEFT_PX}" y="{bottom + 34}">↑ {escape(y.title)}</text>')
    return shapes


def _mark(mark: Mark, across: Scale, up: Scale) -> str:
    right, bottom = WIDTH_PX - RIGHT_PX, HEIGHT_PX - BOTTOM_PX
    if mark.is_vertical:
        at = across.px(mark.value)
        anchor, shift = ("end", -6) if at > WIDTH_PX / 2 else ("start", 6)
        line = f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP_PX}" y2="{bottom}"/>'
        place = f'x="{at + shift:.1f}" y="{TOP_PX + 12}" text-anchor="{anchor}"'
    else:
        at = up.px(mark.value)
        line = f'<line class="mark" x1="{LEFT_PX}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
        place = f'x="{LEFT_PX + 6}" y="{at - 5:.1f}"'
    return f'{line}<text class="word" {place}>{escape(mark.words)}</text>'


def _line(series: Series, across: Scale, up: Scale, x: Axis, y: Axis) -> str:
    parts: list[list[str]] = [[]]
    dots = []
    for a, b in zip(series.xs, series.ys, strict=True):
        if not _is_shown(a, b, x, y):
            parts.append([])
            continue
        left, top = across.px(a), up.px(b)
        parts[-1].append(f"{left:.1f},{top:.1f}")
        if series.has_dots:
            told = f"<title>{escape(series.name)}: {b:.4g} at {a:.4g}</title>"
            dots.append(f'<circle class="dot {series.colour}" cx="{left:.1f}" cy="{top:.1f}" r="3.5">{told}</circle>')
    drawn = [f'<polyline class="line {series.colour}" points="{" ".join(part)}"/>' for part in parts if len(part) > 1]
    return "".join(drawn + dots)
