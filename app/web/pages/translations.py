"""``make translations``: find the words of pages, templates and scripts, and bring the German catalogue up to date.

The catalogue (``.po``) is what people edit, beside it lies the form that the service reads (``.mo``). Both are checked
in. A test compares them with the words in the code.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from babel.messages import Catalog
from babel.messages.catalog import Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from app.inference.options import PARAMS_OF_TASK
from app.web.pages import languages, raised_errors

ROOT = Path(__file__).resolve().parents[3]
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2"), ("static/js/**.js", "javascript")]
OPTIONS = {"static/js/**.js": {"parse_template_string": "true"}, "templates/**.html": {"newstyle": "true"}}
KEYWORDS = {"_": None, "gettext": None, "gettext_noop": None, "Text": None, "ngettext": (1, 2)}
# A moment would make each run look like a change.
NO_MOMENT = datetime(2026, 11, 1, tzinfo=UTC)
LANGUAGE = "de"
HEADER = "# What Cask's pages say, in German. Edit msgstr only; then: make translations."
NOBODY: dict[str, Any] = {
    "project": "Cask",
    "version": "",
    "msgid_bugs_address": " ",
    "last_translator": " ",
    "language_team": "de",
}


def path(language: str = LANGUAGE) -> Path:
    """The catalogue that people edit."""
    return languages.FOLDER / language / "LC_MESSAGES" / "messages.po"


def extract() -> Catalog:
    """All words in the code, without translations."""
    catalogue = Catalog(charset="utf-8")
    found = extract_from_dir(ROOT / "app", METHODS, OPTIONS, keywords=KEYWORDS, comment_tags=("Translators:",))
    for name, _, message, comments, context in found:
        catalogue.add(message, None, [(f"app/{name}", 0)], auto_comments=comments, context=context)
    for path in raised_errors.paths():
        for words in raised_errors.words(path):
            catalogue.add(words, None, [(str(path.relative_to(ROOT)), 0)])
    for each in (field for kind in PARAMS_OF_TASK.values() for field in kind.model_fields.values()):
        # The hint about an option is its description.
        catalogue.add(str(each.description), None, [("app/tasks", 0)])
    return catalogue


def read(language: str = LANGUAGE) -> Catalog:
    """The catalogue as it is. Raises OSError."""
    with path(language).open("rb") as file:
        return read_po(file, locale=language)


def updated(language: str = LANGUAGE) -> Catalog:
    """The catalogue with all words of the code and no others; new ones have no translation yet."""
    catalogue = Catalog(locale=language, header_comment=HEADER, fuzzy=False, **NOBODY)
    known = read(language) if path(language).exists() else Catalog(locale=language)
    for message in extract():
        if message.id:
            there = known.get(message.id)
            catalogue.add(message.id, there.string if there else None, sorted(set(message.locations)))
    catalogue.creation_date = catalogue.revision_date = NO_MOMENT
    return catalogue


def missing(catalogue: Catalog) -> list[Message]:
    """Words without a translation."""
    return [each for each in catalogue if each.id and not all([each.string, *texts(each)])]


def as_po(catalogue: Catalog) -> bytes:
    """The form that people edit."""
    buffer = io.BytesIO()
    write_po(buffer, catalogue, width=120, sort_output=True, include_lineno=False)
    return buffer.getvalue()


def as_mo(catalogue: Catalog) -> bytes:
    """The form that the service reads."""
    buffer = io.BytesIO()
    write_mo(buffer, catalogue)
    return buffer.getvalue()


def main() -> int:
    """Write both forms and print what lacks a translation; the status is 1 where something does."""
    catalogue = updated()
    path().parent.mkdir(parents=True, exist_ok=True)
    path().write_bytes(as_po(catalogue))
    path().with_suffix(".mo").write_bytes(as_mo(read()))
    lacking = missing(catalogue)
    for message in lacking:
        sys.stdout.write(f"no German yet: {message.id!r}\n")
    sys.stdout.write(f"{len(catalogue) - len(lacking)} of {len(catalogue)} in {path().relative_to(ROOT)}\n")
    if lacking:
        sys.stdout.write("Next: write the German words there, then make translations once more.\n")
    return 1 if lacking else 0


def texts(message: Message) -> Iterator[str]:
    yield from [message.string or ""] if isinstance(message.string, str | None) else message.string


if __name__ == "__main__":
    sys.exit(main())
