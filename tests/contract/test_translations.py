"""Every word that a page shows has its German, and the German catalogue holds no others."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages import Catalog
from babel.messages.mofile import read_mo

from app.config import ROOT
from app.errors import CaskError
from app.guards import failures
from app.options import WISHES
from app.pages import languages, sentences, translations

# Where sentences are raised that a person can meet on a page.
HEARD = (
    *(
        "app/budget.py",
        "app/cache/flights.py",
        "app/decoding/child.py",
        "app/decoding/children.py",
        "app/decoding/decoder.py",
    ),
    "app/decoding/lanes.py",
    *("app/guards/memory.py", "app/heads/looks.py"),
    *("app/images.py", "app/options.py", "app/routing.py", "app/guards/sizes.py", "app/guards/hosts.py"),
    *("app/guards/admission.py", "app/guards/failures.py", "app/pages/asked.py", "app/predictions.py"),
    *("app/engine/client.py", "app/engine/worker.py", "app/engine/batcher.py"),
)
# Commands of operators raise them, or they say another's message.
UNHEARD = re.compile(r"\x00 cannot be served: \x00|\x00 \x00: \x00\x00\.|the engine closed the connection")
NEXT = "write the German words into app/translations/de/LC_MESSAGES/messages.po, then: make translations"


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    return translations.read()


def test_catalogue_holds_the_words_of_the_code_and_no_others(catalogue: Catalog) -> None:
    there = {message.id for message in catalogue if message.id}
    wanted = {message.id for message in translations.extract() if message.id}

    assert there - wanted == set(), "stale: make translations"
    assert wanted - there == set(), "new: make translations"
    assert len(wanted) > 200


def test_every_word_has_its_german(catalogue: Catalog) -> None:
    assert [message.id for message in translations.missing(catalogue)] == [], NEXT
    assert [message.id for message in catalogue if message.fuzzy and message.id] == []


def test_german_words_hold_the_same_values(catalogue: Catalog) -> None:
    assert [(message.id, str(error)) for message in catalogue for error in message.check()] == []
    for message in catalogue:
        for text in translations.texts(message):
            assert set(languages.PLACEHOLDER.findall(text)) == set(languages.PLACEHOLDER.findall(str(message.id)))


def test_compiled_catalogue_is_that_of_the_words(catalogue: Catalog) -> None:
    compiled = read_mo(io.BytesIO(translations.path().with_suffix(".mo").read_bytes()))

    assert by_words(compiled) == by_words(catalogue), "make translations"


def by_words(catalogue: Catalog) -> dict[str, list[str]]:
    """All words with their translations; the forms for one and for several joined."""
    return {
        each.id if isinstance(each.id, str) else "|".join(each.id): list(translations.texts(each))
        for each in catalogue
        if each.id
    }


def all_errors(kind: type[CaskError] = CaskError) -> Iterator[type[CaskError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from all_errors(each)


def test_titles_of_failures_and_words_of_options_are_listed() -> None:
    titles = {each.title for each in all_errors() if each.__module__ in ("app.errors", "app.guards.hosts")}
    titles |= {title for _, title, _ in failures.HTTP_FAILURES.values()}
    hints = {str(field.description) for kind in WISHES.values() for field in kind.model_fields.values()}

    assert (titles | hints) - set(sentences.ALL) == set(), "list it in app/pages/sentences.py, then: make translations"


def said(path: Path) -> Iterator[str]:
    """What a file's failures say, message and hint; NUL stands for a value."""
    for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
        if not re.fullmatch(r"(?!Protocol|Value)\w*Error", ast.unparse(call.func)):
            continue
        for value in (*call.args[:1], *(each.value for each in call.keywords if each.arg == "hint")):
            if isinstance(value, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\x00" for part in value.values)
            elif isinstance(value, ast.Constant) and value.value:
                yield str(value.value)


@pytest.mark.parametrize("path", HEARD)
def test_what_a_page_may_have_to_say_is_listed(path: str) -> None:
    unlisted = [
        sentence
        for sentence in said(ROOT / path)
        if sentence not in sentences.ALL
        and not UNHEARD.fullmatch(sentence)
        and not any(pattern.fullmatch(sentence) for pattern, _ in languages.patterns())
    ]

    assert unlisted == [], "list it in app/pages/sentences.py, then: make translations"
