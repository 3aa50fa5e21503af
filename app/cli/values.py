"""Settings as people and programs get to see them: masked, with units, or as JSON."""

from __future__ import annotations

from typing import Any

from app.config import MASK, Declaration, Settings, plugin_settings


def row(settings: Settings, one: Declaration) -> dict[str, Any]:
    """One setting with all that is known of it, for JSON."""
    return {
        "name": one.name,
        "value": plain(settings, one),
        "source": settings.sources[one.field],
        "section": one.section,
        "meaning": one.sentence,
        "unit": one.unit,
        "expected": one.expected,
        "default": one.default,
        "secret": one.is_secret,
    }


def plain(settings: Settings, one: Declaration, *, is_revealed: bool = False) -> Any:
    """A value that JSON can hold; secrets masked unless revealed."""
    text = settings.text(one.field)
    if one.is_secret:
        return (text if is_revealed else MASK) if text else None
    value = getattr(settings, one.field)
    return value if value is None or isinstance(value, bool | int | float | tuple) else text


def plugin_rows(settings: Settings) -> list[tuple[str, str, str, str, str]]:
    """What plugins declare: section, name, value, source and meaning, as people see them."""
    found = []
    for one in plugin_settings.every(settings)[0]:
        reading = settings.plugin_readings.get(one.field)
        value = reading.value if reading else ",".join(one.default) if one.kind == "list" else str(one.default)
        shown = MASK if one.is_secret and value else value or "(not set)"
        source = reading.source if reading else "default"
        found.append((f"Plugin {one.plugin}", one.name, f"{shown} {one.unit}".strip(), source, one.meaning))
    return found


def shown(settings: Settings, one: Declaration) -> str:
    """A value for people: with its unit, masked if secret."""
    text = settings.text(one.field)
    if not text:
        return "(not set)"
    return MASK if one.is_secret else f"{text} {one.unit}" if one.unit and text != "0" else text
