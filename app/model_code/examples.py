"""Examples of a model with code: what it is asked, and what it answered when it was added.

``examples/01.json`` is the body of a request; ``examples/02.jpg`` the one picture or file that the model takes.
``01.expected.json`` holds the answer, or the list of answers where the request has ``items``. They are compared at each
load, warm the model up, and show people how to ask.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import CaskError, GoldenCheckError
from app.inference import code_images, code_items, images
from app.inference.images import Limits
from app.model_code.differences import difference
from app.model_code.schema_marks import BESIDE, KIND
from app.storage import files

FOLDER = "examples"
EXPECTED = ".expected.json"
ITEMS = "items"
MOST = 100
LIMITS = Limits(2**28, 2**28, ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))

# Options and the items of one call in; for each item ``answer``, ``refused`` or ``failed``. See ``ModelWorker.ask``.
Ask = Callable[[dict[str, Any], Sequence[tuple[Sequence[Any], Any]]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Example:
    """One request as the model's process gets it. ``is_list``: it has ``items``."""

    path: Path
    items: list[tuple[list[Any], code_items.Data]]
    options: dict[str, Any]
    is_list: bool

    @property
    def expected_path(self) -> Path:
        return self.path.with_name(self.path.stem + EXPECTED)

    @property
    def name(self) -> str:
        return f"{FOLDER}/{self.path.name}"


def paths(folder: Path) -> list[Path]:
    """The files that are asked, in their order. Raises GoldenCheckError where two have one name, or there are many."""
    place = folder / FOLDER
    found = sorted(p for p in place.glob("[!.]*") if not p.name.endswith(EXPECTED))
    stems = [path.stem for path in found]
    twice = next((path for path in found if stems.count(path.stem) > 1), None)
    if twice is not None:
        raise GoldenCheckError(f"{place} holds two examples {twice.stem}.", hint="Give each a name of its own.")
    if len(found) > MOST:
        raise GoldenCheckError(f"{place} holds {len(found)} examples.", hint=f"At most {MOST} are asked at each load.")
    return found


def read(path: Path, signature: Mapping[str, Any]) -> Example:
    """One example, checked as a request is. Raises GoldenCheckError with its name and the reason."""
    try:
        data = files.read(path, files.GOLDEN_BYTES)
        rows, options, is_list = _request(path, data, signature)
        items = [
            code_items.item(signature, _decoded(signature, row), _read_picture, f"items[{n}]." if is_list else "")
            for n, row in enumerate(rows)
        ]
        return Example(path, items, code_items.options(signature, options), is_list)
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, files.reason(error) if isinstance(error, OSError) else str(error)) from None
    except CaskError as error:
        raise _unusable(path, f"{error.message} {error.hint}") from None


def _unusable(path: Path, why: str) -> GoldenCheckError:
    return GoldenCheckError(
        f"{FOLDER}/{path.name} is no request to this model: {why.rstrip('.')}.",
        hint="A .json file holds the body of a request; another file is the one picture or file that the model takes.",
    )


def _request(
    path: Path, data: bytes, signature: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any], bool]:
    """The items, the options, and whether it is a list of items."""
    if path.suffix != ".json":
        name = code_items.lone_file(signature)
        if not name:
            raise ValueError(f"the model takes {', '.join(signature['inputs'])}, not one picture or file alone")
        return [{name: data}], {}, False
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - as the other faults of the file
    if ITEMS in document:
        rows = document.pop(ITEMS)
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError("items is no list of objects")
        return rows, document, True
    return [{name: document.pop(name) for name in signature["inputs"] if name in document}], document, False


def _decoded(signature: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Base64 becomes bytes where the model takes a picture or bytes."""
    found = dict(row)
    for name, schema in signature["inputs"].items():
        if schema.get(KIND) in BESIDE and not isinstance(found.get(name, b""), bytes):
            try:
                found[name] = base64.b64decode(found[name], validate=True)
            except (binascii.Error, TypeError):
                raise ValueError(f"{name} is no base64 text") from None
    return found


def _read_picture(data: bytes, shape: Sequence[int | None] | None) -> code_items.Pixels:
    return code_images.read(data, shape, lambda given, spec: images.read(given, spec, LIMITS))


# ── asking and comparing ─────────────────────────────────────────────────────────────────────────────────────────────


def answer(example: Example, ask: Ask, batch_size: int) -> Any:
    """What the model answers now, as JSON values; ``{"refused": why}`` for an item that it refuses.

    Raises GoldenCheckError where it fails.
    """
    found: list[Any] = []
    for start in range(0, len(example.items), batch_size):
        try:
            rows = ask(example.options, example.items[start : start + batch_size])
        except CaskError as error:
            raise GoldenCheckError(f"{example.name}: {error.message}", hint="The log has what it wrote.") from None
        found += [_outcome(example, row) for row in rows]
    return found if example.is_list else found[0]


def _outcome(example: Example, row: Mapping[str, Any]) -> Any:
    if "failed" in row:
        raise GoldenCheckError(
            f"{example.name}: predict failed: {row.get('why', row['failed'])}.",
            hint="The log has the traceback; mend it, or the file.",
        )
    return {"refused": row["refused"]} if "refused" in row else json.loads(row["answer"])


def check(folder: Path, signature: Mapping[str, Any], ask: Ask, batch_size: int, tolerance: float) -> None:
    """Ask all and compare. Raises GoldenCheckError with the first difference. ``tolerance``: see ``difference``."""
    for path in paths(folder):
        example = read(path, signature)
        now = answer(example, ask, batch_size)
        try:
            stored = json.loads(files.read(example.expected_path, files.GOLDEN_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise GoldenCheckError(
                f"{FOLDER}/{example.expected_path.name} cannot be read: {files.reason(error)}.",
                hint="Remove it and add the model again: what it answers is then stored.",
            ) from None
        found = difference(stored, now, tolerance)
        if found:
            raise GoldenCheckError(
                f"{example.name} is not answered as stored: {found}.",
                hint="The code, its files or a library changed. If that was meant, remove the .expected.json file and "
                "add the model as another version.",
            )


def store_missing(folder: Path, signature: Mapping[str, Any], ask: Ask, batch_size: int) -> Iterator[str]:
    """Write what is answered now for each example without an expected answer; their names. Raises GoldenCheckError."""
    for path in paths(folder):
        example = read(path, signature)
        if not example.expected_path.exists():
            text = json.dumps(answer(example, ask, batch_size), indent=1, ensure_ascii=False)
            example.expected_path.write_text(f"{text}\n", encoding="utf-8")
            yield example.name
