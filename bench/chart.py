"""The throughput of all contenders as an SVG that reads on light and on dark ground. No library, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bench.statistics import Sample, Summary, by_round, contenders, summarise

WIDTH_PX = 860
LABEL_PX, VALUE_PX = 320, 90
ROW_PX, BAR_PX = 34, 18
TOP_PX, BOTTOM_PX = 78, 40
STYLE = """
    text { font: 14px system-ui, sans-serif; fill: #24292f }
    .title { font-size: 18px; font-weight: 600 }
    .note { font-size: 12px; fill: #57606a }
    .peer { fill: #8c959f } .ours { fill: #0969da } .limit { fill: none; stroke: #57606a; stroke-dasharray: 4 3 }
    .span { stroke: #24292f; stroke-width: 1.5 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .note { fill: #9198a1 } .peer { fill: #6e7681 } .ours { fill: #4493f8 }
      .limit { stroke: #9198a1 } .span { stroke: #e6edf3 }
    }"""


def draw(samples: Sequence[Sample], titles: dict[str, str], measure: str, title: str, note: str) -> str:
    """Bars of the medians with the span of all rounds; empty when nothing was measured."""
    rows = [(name, summarise(by_round(samples, name, measure).values())) for name in contenders(samples)]
    rows = [row for row in rows if not math.isnan(row[1].median)]
    if not rows:
        return ""
    scale = (WIDTH_PX - LABEL_PX - VALUE_PX) / max(summary.high for _, summary in rows)
    height = TOP_PX + ROW_PX * len(rows) + BOTTOM_PX - ROW_PX // 2
    bars = [_bar(i, name, titles.get(name, name), summary, scale) for i, (name, summary) in enumerate(rows)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" role="img">',
            f"  <title>{escape(title)}</title>",
            f"  <style>{STYLE}\n  </style>",
            f'  <text class="title" x="0" y="24">{escape(title)}</text>',
            f'  <text class="note" x="0" y="46">{escape(note)}</text>',
            *bars,
            "</svg>\n",
        ]
    )


def _bar(row: int, name: str, title: str, summary: Summary, scale: float) -> str:
    y = TOP_PX + row * ROW_PX
    middle, text_y = y + BAR_PX / 2, y + BAR_PX - 4
    kind = "ours" if name.startswith("ours") else "limit" if name.startswith("raw") else "peer"
    low, high, width = (LABEL_PX + scale * value for value in (summary.low, summary.high, summary.median))
    parts = [
        f'<text x="{LABEL_PX - 12}" y="{text_y}" text-anchor="end">{escape(title)}</text>',
        f'<rect class="{kind}" x="{LABEL_PX}" y="{y}" width="{width - LABEL_PX:.1f}" height="{BAR_PX}" rx="3"/>',
        f'<text x="{high + 10:.1f}" y="{text_y}">{summary.median:.1f}</text>',
    ]
    if summary.rounds > 1:
        parts.insert(2, f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>')
    return "\n".join(f"  {part}" for part in parts)
