"""Labels from somebody's file: one a line, numbered lines, or JSON; anything else is refused by name."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.errors import ModelLoadError
from app.storage import files

# Not splitlines(): it also splits at form feeds and U+2028, which stand inside labels.
_LINE_ENDS = re.compile(r"\r\n|\n|\r")
_NUMBERED = re.compile(r"\(?(\d+)(?:\s*[:,;=)]\s*|\.?\s+)(\S.*)")
_NUMBER_LAST = re.compile(r"(.*\S)\s*[,;\t]\s*(\d+)")
# Blanks, and marks without a width that stand where files were put together.
_BLANK = re.compile(r"^[\s\ufeff\u200b]+|[\s\ufeff\u200b]+$")
_PROTOBUF = re.compile(r"^item\s*\{", re.MULTILINE)
_YAML = re.compile(r"^(names|nc|train|val|path)\s*:", re.MULTILINE)
# Where Hugging Face and others keep them inside a larger table.
_KEYS = ("id2label", "index_to_name", "names", "labels", "classes", "categories")
_ENCODINGS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_ONE_A_LINE = "A UTF-8 text file with one label a line, or a JSON list, in the order of the model's outputs."


def read(path: Path) -> tuple[str, ...]:
    """The labels in the order of the model's outputs. Raises ModelLoadError that says what the file is instead."""
    found = _parsed(path, _text(path))
    if not found:
        raise _refused(path, "is empty")
    for label in found:
        if not label or any(ord(character) < 32 and character not in "\t\x0c" for character in label):
            raise _refused(path, f"holds {label!r}, which is no label")
    return tuple(found)


def repeated(labels: Sequence[str]) -> Iterator[str]:
    """A sentence for each label that stands there more than once: an answer does not tell the two apart."""
    for label, count in Counter(labels).items():
        if count > 1:
            yield f"the label {label!r} stands there {count} times; answers will not tell these classes apart"


def _text(path: Path) -> str:
    try:
        raw = files.read(path, files.TEXT_BYTES)
        encoding = next((name for mark, name in _ENCODINGS if raw.startswith(mark)), "utf-8-sig")
        return raw.decode(encoding)
    except OSError as error:
        raise _refused(path, f"cannot be read: {files.reason(error)}") from None
    except UnicodeDecodeError as error:
        raise _refused(path, f"cannot be read: {error}") from None


def _parsed(path: Path, text: str) -> list[str]:
    if text.lstrip()[:1] in ("[", "{"):
        return _from_json(path, text)
    if path.suffix in (".yaml", ".yml") or _YAML.search(text):
        raise _refused(path, "is YAML, as ultralytics describes data")
    if _PROTOBUF.search(text):
        raise _refused(path, "is a map of labels of TensorFlow (pbtxt)")
    lines = [line for each in _LINE_ENDS.split(text) if (line := _BLANK.sub("", each))]
    if lines and all(re.fullmatch(r'"[^"]+"', line) for line in lines):
        lines = [line.strip('"') for line in lines]
    return _without_numbers(path, lines)


def _without_numbers(path: Path, lines: list[str]) -> list[str]:
    """Lines such as ``0 cat``: the numbers are places, where all lines have one."""
    last = [match for line in lines if (match := _NUMBER_LAST.fullmatch(line))]
    if last and len(last) == len(lines):
        return _by_place(path, {int(match[2]): match[1] for match in last}, len(lines))
    matches = [match for line in lines if (match := _NUMBERED.fullmatch(line))]
    if not matches or len(matches) < len(lines):
        return lines
    return _by_place(path, {int(match[1]): match[2].strip() for match in matches}, len(lines))


def _by_place(path: Path, by_number: Mapping[int, str], count: int) -> list[str]:
    first = min(by_number, default=0)
    if first not in (0, 1) or sorted(by_number) != list(range(first, first + count)):
        raise _refused(
            path,
            f"numbers its {count} labels, but not from 0 to {count - 1} without gaps",
            "Give every output of the model a label. Are the numbers part of the labels? Then write a JSON list.",
        )
    return [by_number[number] for number in sorted(by_number)]


def _from_json(path: Path, text: str) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"begins like JSON and is none: {error}") from None
    if isinstance(content, dict):
        content = next((content[key] for key in _KEYS if isinstance(content.get(key), dict | list)), content)
    if isinstance(content, list) and content and all(isinstance(each, dict) and "id" in each for each in content):
        # COCO's categories, in whatever order they stand.
        return _by_place(path, {_number(path, each): _name(path, each) for each in content}, len(content))
    if isinstance(content, list):
        return [_name(path, each) for each in content]
    if content and all(re.fullmatch(r"\d+", key) for key in content):
        return _by_place(path, {int(key): _name(path, value) for key, value in content.items()}, len(content))
    if content and all(type(value) is int for value in content.values()):
        # class_to_idx of torchvision's ImageFolder.
        return _by_place(path, {number: name for name, number in content.items()}, len(content))
    raise _refused(path, "is a JSON object, but does not give a name to each number")


def _number(path: Path, category: Mapping[str, Any]) -> int:
    if type(category["id"]) is not int:
        raise _refused(path, f"holds the id {json.dumps(category['id'])[:60]} where a number should be")
    return int(category["id"])


def _name(path: Path, value: Any) -> str:
    """A text, or the last of several: ``["n01440764", "tench"]`` in torchvision's and Keras's lists of ImageNet."""
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, dict):
        value = value.get("name")
    if not isinstance(value, str):
        raise _refused(path, f"holds {json.dumps(value)[:60]} where a label should be")
    return value.strip()


def _refused(path: Path, words: str, hint: str = _ONE_A_LINE) -> ModelLoadError:
    return ModelLoadError(f"LABELS {path} {words}.", hint=hint)
