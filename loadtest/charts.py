"""The geometry of charts: lines over two axes, stacked bars. report.html draws them as SVG; colours are CSS classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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


@dataclass
class Chart:
    """A chart in pixels. Lines are points by colour; dots, bars and words as report.html reads them."""

    title: str
    legend: list[tuple[str, str]]
    height: int = HEIGHT_PX
    x_title: str = ""
    y_title: str = ""
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    marks: list[tuple[float, str, bool]] = field(default_factory=list)
    lines: list[tuple[str, list[tuple[float, float]]]] = field(default_factory=list)
    dots: list[tuple[str, float, float, str]] = field(default_factory=list)
    bars: list[tuple[Any, ...]] = field(default_factory=list)
    words: list[tuple[float, float, str, str]] = field(default_factory=list)
    width, left, right, top, bottom = WIDTH_PX, LEFT_PX, WIDTH_PX - RIGHT_PX, TOP_PX, HEIGHT_PX - BOTTOM_PX


class Scale:
    """From values to pixels."""

    def __init__(self, low: float, high: float, begin_px: float, end_px: float, is_log: bool) -> None:
        self._log = is_log
        self.low, self.high = low, high if high > low else low + 1
        self._begin, self._end = begin_px, end_px

    def px(self, value: float) -> float:
        """Where a value lies."""
        low, high, at = (math.log10(each) if self._log else each for each in (self.low, self.high, value))
        return round(self._begin + (at - low) / (high - low) * (self._end - self._begin), 1)

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


def lines(title: str, x: Axis, y: Axis, series: Sequence[Series], marks: Sequence[Mark] = ()) -> Chart | None:
    """A chart of lines; None when there is nothing to show."""
    points = [(a, b) for one in series for a, b in zip(one.xs, one.ys, strict=True) if _is_shown(a, b, x, y)]
    if not points:
        return None
    xs = [a for a, _ in points] + [a for a, _ in x.ticks] + list(x.ends)
    ys = [b for _, b in points] + [
        mark.value for mark in marks if not mark.is_vertical and (mark.value > 0 or not y.is_log)
    ]
    lowest = min(ys) * 0.7 if y.is_log else 0.0
    across = Scale(min(xs), max(xs), LEFT_PX, WIDTH_PX - RIGHT_PX, x.is_log)
    up = Scale(lowest, max(ys) * (1.3 if y.is_log else 1.08), HEIGHT_PX - BOTTOM_PX, TOP_PX, y.is_log)
    chart = Chart(title, [(one.name, one.colour) for one in series], x_title=x.title, y_title=y.title)
    chart.x_ticks = [(across.px(value), word) for value, word in x.ticks or across.ticks()]
    chart.y_ticks = [(up.px(value), word) for value, word in y.ticks or up.ticks()]
    chart.marks = [((across if m.is_vertical else up).px(m.value), m.words, m.is_vertical) for m in marks]
    for one in series:
        _add_line(chart, one, across, up, (x, y))
    return chart


def _add_line(chart: Chart, series: Series, across: Scale, up: Scale, axes: tuple[Axis, Axis]) -> None:
    """The line of a series, in pieces where it is broken, and its dots."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(series.xs, series.ys, strict=True):
        if not _is_shown(a, b, *axes):
            pieces.append([])
            continue
        pieces[-1].append((across.px(a), up.px(b)))
        if series.has_dots:
            chart.dots.append((series.colour, *pieces[-1][-1], f"{series.name}: {b:.4g} at {a:.4g}"))
    chart.lines += [(series.colour, piece) for piece in pieces if len(piece) > 1]


def stacks(title: str, unit: str, rows: Sequence[tuple[str, Sequence[tuple[str, str, float]]]]) -> Chart | None:
    """Bars made of parts, one a row: (label, [(part, colour, value)]); None when there is nothing to show."""
    longest = max((sum(value for *_, value in parts) for _, parts in rows), default=0.0)
    if longest <= 0:
        return None
    scale = (WIDTH_PX - BAR_LABEL_PX - 90) / longest
    chart = Chart(title, [(name, colour) for name, colour, _ in rows[0][1]], height=TOP_PX + len(rows) * BAR_STEP_PX)
    for number, (label, parts) in enumerate(rows):
        top, left = TOP_PX + number * BAR_STEP_PX, float(BAR_LABEL_PX)
        chart.words.append((BAR_LABEL_PX - 12, top + 18, "end", label))
        for name, colour, value in parts:
            width = round(value * scale, 1)
            inside = f"{value:.1f}" if width > 34 else ""
            chart.bars.append((colour, round(left, 1), top, width, BAR_PX, f"{name}: {value:.1f} {unit}", inside))
            left += width
        chart.words.append((round(left + 8, 1), top + 18, "start", f"{sum(part[2] for part in parts):.1f} {unit}"))
    return chart


def _is_shown(a: float, b: float, x: Axis, y: Axis) -> bool:
    return math.isfinite(a) and math.isfinite(b) and (a > 0 or not x.is_log) and (b > 0 or not y.is_log)
