"""Settings that plugins declare in plugin.toml: ``PLUGIN_<NAME>_<SETTING>``, read from the same places as ours."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config.refusals import MASK, SECRET_SOUNDING, did_you_mean
from app.config.schema import PLUGIN_PREFIX, Reading, Settings
from app.errors import PluginError, SettingsError

FILE = "plugin.toml"
# In a text: the plugin's own folder below STATE_DIR.
STATE = "{state}"
KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")
TYPES: dict[str, type] = {"text": str, "whole number": int, "number": float, "yes or no": bool, "list": tuple}
# As TOML and Python call them.
OTHER_WORDS = {"str": "text", "int": "whole number", "float": "number", "bool": "yes or no"}
# What else is said of a setting: its type, one of it, and in words.
RIGHT: dict[str, tuple[Any, Any, str]] = {
    "meaning": (str, "", "one sentence"),
    "unit": (str, "", "a text"),
    "choices": (list, [], "a list"),
    "at_least": (int | float, 0, "a number"),
    "at_most": (int | float, 0, "a number"),
    "secret": (bool, False, "true or false"),
}
KEYS = ("type", "default", *RIGHT)
NUMBERS = ("at_least", "at_most")
BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class PluginSetting:
    """One setting as plugin.toml declares it. ``kind`` is one of TYPES."""

    plugin: str
    key: str
    kind: str
    default: Any
    meaning: str
    unit: str = ""
    choices: tuple[Any, ...] = ()
    at_least: float = -math.inf
    at_most: float = math.inf
    is_secret: bool = False

    @property
    def field(self) -> str:
        """Under which it is found in env files, in lower case."""
        return f"{PLUGIN_PREFIX}{self.plugin}_{self.key}".lower()

    @property
    def name(self) -> str:
        return self.field.upper()

    @property
    def expected(self) -> str:
        """What a right value is, in words that follow 'expected'."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        if self.kind == "yes or no":
            return "true or false"
        low = f" of at least {self.at_least:g}" if self.at_least > -math.inf else ""
        high = f" of at most {self.at_most:g}" if self.at_most < math.inf else ""
        return {"list": "words with commas between"}.get(self.kind, f"a {self.kind}{low}{high}")

    def read(self, text: str) -> Any:
        """The value of a text. Raises ValueError."""
        value: Any
        if self.kind == "yes or no":
            if text not in BOOLEANS:
                raise ValueError(text)
            value = BOOLEANS[text]
        elif self.kind == "list":
            value = tuple(part.strip() for part in text.split(",") if part.strip())
        else:
            value = TYPES[self.kind](text)
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raises ValueError for a value that is not one of the choices or out of range."""
        each = value if self.kind == "list" else (value,)
        if self.choices and any(one not in self.choices for one in each):
            raise ValueError(value)
        if self.kind in ("whole number", "number") and not self.at_least <= value <= self.at_most:
            raise ValueError(value)


def read_table(path: Path) -> dict[str, Any]:
    """A plugin.toml as it stands. Raises PluginError with the line."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise PluginError(f"{path}: {error}; expected TOML.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise PluginError(f"{path} cannot be read: {reason}.") from None


def declared(path: Path, plugin: str) -> tuple[PluginSetting, ...]:
    """The settings in a plugin.toml. Raises PluginError."""
    table = read_table(path).get("settings", {})
    if not isinstance(table, dict):
        raise PluginError(f"{path}: settings is {table!r}; expected a table for each, such as [settings.limit].")
    return tuple(_declaration(path, plugin, key, each) for key, each in table.items())


def _declaration(path: Path, plugin: str, key: str, row: Any) -> PluginSetting:
    place = f"{path}: [settings.{key}]"
    if not KEY.fullmatch(key) or not isinstance(row, dict):
        raise PluginError(f"{place} is not a table with a name of small letters, digits and _; expected one.")
    for word in row:
        if word not in KEYS:
            raise PluginError(f"{place} says {word!r}; expected {', '.join(KEYS)}.{did_you_mean(word, KEYS)}")
    given = row.get("type")
    kind = OTHER_WORDS.get(str(given), str(given))
    if kind not in TYPES:
        words = (*TYPES, *OTHER_WORDS)
        raise PluginError(f"{place}: type is {given!r}; expected one of {', '.join(words)}.")
    if not str(row.get("meaning", "")).strip():
        raise PluginError(f"{place} has no meaning; expected one sentence that says what it is for.")
    for word, right in RIGHT.items():
        if not isinstance(row.get(word, right[1]), right[0]) or (word in NUMBERS and isinstance(row.get(word), bool)):
            raise PluginError(f"{place}: {word} is {row[word]!r}; expected {right[2]}.")
    if kind == "list" and not isinstance(row.get("default", []), list):
        raise PluginError(f"{place}: default is {row['default']!r}; expected a list.")
    default = tuple(row.get("default", ())) if kind == "list" else row.get("default", TYPES[kind]())
    one = PluginSetting(
        plugin, key, kind, default, row["meaning"], row.get("unit", ""), tuple(row.get("choices", ())),
        row.get("at_least", -math.inf), row.get("at_most", math.inf), bool(row.get("secret", False)),
    )  # fmt: skip
    try:
        is_right = isinstance(default, float | int if kind == "number" else TYPES[kind])
        one.check(default if is_right else one.read(str(default)))
        if not is_right:
            raise ValueError(default)
    except (ValueError, TypeError):
        if "default" in row or not one.is_secret:
            raise PluginError(f"{place}: default is {default!r}; expected {one.expected}.") from None
    return one


def values(settings: Settings, declarations: tuple[PluginSetting, ...]) -> dict[str, Any]:
    """Key → value in force, STATE in texts replaced. Raises SettingsError for a value that is not right."""
    return {one.key: _placed(settings, one, _value(settings, one)) for one in declarations}


def own_folder(settings: Settings, plugin: str) -> Path:
    """Where a plugin keeps what it likes."""
    return Path(settings.state_dir) / "plugins" / plugin


def _placed(settings: Settings, one: PluginSetting, value: Any) -> Any:
    return value.replace(STATE, str(own_folder(settings, one.plugin))) if one.kind == "text" else value


def _value(settings: Settings, one: PluginSetting) -> Any:
    reading = settings.plugin_readings.get(one.field)
    if reading is None:
        return one.default
    try:
        return one.read(reading.value)
    except ValueError:
        said = _said(one.name, reading, is_secret=one.is_secret)
        raise SettingsError(f"{said}; expected {one.expected}.") from None


def _said(name: str, reading: Reading, *, is_secret: bool) -> str:
    place = "the environment" if reading.source == "environment" else reading.source
    return f"{name} is {MASK if is_secret else repr(reading.value)} (from {place})"


def folders(settings: Settings) -> list[Path]:
    """Where plugins are that PLUGINS names, or all that are there; sorted by name. Raises PluginError."""
    root = Path(settings.plugins_dir)
    found = {path.parent.name: path.parent for path in sorted(root.glob(f"*/{FILE}")) if path.parent.name[0] != "."}
    for name in settings.plugins:
        if name not in found:
            there = ", ".join(found) or "none"
            raise PluginError(
                f"PLUGINS names {name!r}, but there is no {root / name / FILE}; there: {there}."
                f"{did_you_mean(name, [*found])}"
            )
    return [path for name, path in found.items() if not settings.plugins or name in settings.plugins]


def every(settings: Settings) -> tuple[list[PluginSetting], list[str]]:
    """What all chosen plugins declare, and the names of plugins whose declarations cannot be read."""
    found: list[PluginSetting] = []
    broken: list[str] = []
    try:
        chosen = folders(settings)
    except PluginError:
        return [], [*settings.plugins]
    for folder in chosen:
        try:
            found += declared(folder / FILE, folder.name)
        except PluginError:
            broken.append(folder.name)
    return found, broken


def check(settings: Settings) -> None:
    """Refuse a name that no plugin declares, and a wrong value. Raises SettingsError."""
    if not settings.plugin_readings:
        return
    found, broken = every(settings)
    values(settings, tuple(found))
    known_fields = {one.field for one in found}
    unknown = {field: each for field, each in settings.plugin_readings.items() if field not in known_fields}
    for field, reading in unknown.items():
        # Of a plugin that is broken nobody knows what it declares; mounting says what is wrong with it.
        if not any(field.startswith(f"{PLUGIN_PREFIX}{name}_".lower()) for name in broken):
            name, known = field.upper(), [one.name for one in found]
            said = _said(name, reading, is_secret=bool(SECRET_SOUNDING.search(name)))
            raise SettingsError(
                f"{said}, but no plugin in {settings.plugins_dir} declares it; expected a name from a plugin.toml."
                f"{did_you_mean(name, known)}"
            )
