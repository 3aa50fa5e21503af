"""``python -m app.telemetry``: write docs/metrics.md from what is declared."""

from __future__ import annotations

from collections.abc import Sequence

from app.config import ROOT
from app.telemetry.metrics import DECLARED, SECONDS, Label, Metric

DOCUMENT = "docs/metrics.md"
# Name before the first difference → heading, in the order in which an operator asks.
SECTIONS = {
    "cask_http": "Requests",
    "cask_web": "Requests",
    "cask_refused": "Requests",
    "cask_decode": "Predictions",
    "cask_predicted": "Predictions",
    "cask_engine": "Predictions",
    "cask_model": "Models",
    "cask_cache": "Cache of answers",
    "cask_job": "Jobs",
}
OTHERS = "The service and its processes"
HEAD = """# Metrics

Written by `python -m app.telemetry` from `app/telemetry/metrics.py`; change it there. What to look at and what to do:
[alerts](operations.md#alerts).

`GET /metrics` gives them in Prometheus' text form, or as OpenMetrics. The figures are sums over all processes since the
service started; gauges are those of living processes. A metric or a series appears with its first event. Upper bounds
of histograms, unless others stand there: {seconds} seconds.
"""


def main() -> None:
    """Write the document."""
    (ROOT / DOCUMENT).write_text(document(), encoding="utf-8")
    print(f"Wrote {DOCUMENT}.")


def document() -> str:
    """The text of docs/metrics.md."""
    parts = [HEAD.format(seconds=_bounds(SECONDS))]
    for section in dict.fromkeys([*SECTIONS.values(), OTHERS]):
        parts.append(f"\n## {section}\n\n| Metric, kind | Labels | Meaning |\n|---|---|---|\n")
        parts += [_row(metric) for metric in DECLARED.values() if _section(metric) == section]
    return "".join(parts)


def _section(metric: Metric) -> str:
    return next((title for start, title in SECTIONS.items() if metric.name.startswith(start)), OTHERS)


def _row(metric: Metric) -> str:
    values = {name: _values(label) for name, label in metric.labels.items()}
    labels = "<br>".join(f"`{name}`{f': {said}' if said else ''}" for name, said in values.items())
    kind: str = metric.kind
    if metric.buckets and metric.buckets != SECONDS:
        kind += f": {_bounds(metric.buckets)} {metric.unit}"
    return f"| `{metric.name}`, {kind} | {labels} | {metric.sentence} |\n"


def _bounds(buckets: Sequence[float]) -> str:
    return ", ".join(f"{bound:g}" for bound in buckets)


def _values(label: Label) -> str:
    if label.pattern:
        # What stands for itself: the models that are held, a plugin's name.
        return "" if "held" in label.of else label.of
    if len(label.values) > 12:
        return f"{len(label.values)} values such as {', '.join(f'`{value}`' for value in label.values[:2])}"
    return ", ".join(f"`{value}`" for value in label.values)


if __name__ == "__main__":
    main()
