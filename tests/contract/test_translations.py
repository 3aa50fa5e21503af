"""Every word that a page shows has its German, and the German catalogue holds no others."""

from __future__ import annotations

import ast
import importlib
import io
import re
from collections.abc import Iterator

import pytest
from babel.messages import Catalog
from babel.messages.mofile import read_mo

from app.config import ROOT
from app.errors import CaskError
from app.inference.options import PARAMS_OF_TASK
from app.web.middleware import error_handlers
from app.web.middleware.accept_language import PLACEHOLDER
from app.web.pages import raised_errors, translations

FIELD = re.compile(r"%\((\w+)\)")
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
            assert set(FIELD.findall(text)) == set(FIELD.findall(str(message.id)))


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


def named() -> Iterator[tuple[str, ast.expr]]:
    """What failures that callers hear say by another expression than the words themselves."""
    for path in raised_errors.paths():
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            for each in raised_errors.said(call):
                if not isinstance(each, ast.Constant):
                    yield f"{path.relative_to(ROOT)}:{each.lineno}", each


def test_no_failure_has_its_values_within_its_words() -> None:
    assert [place for place, each in named() if isinstance(each, ast.JoinedStr)] == [], (
        'say RequestError("… %(name)s …", name=name): other languages are looked up by the words'
    )


def test_words_that_are_given_by_a_constant_are_marked(catalogue: Catalog) -> None:
    constants = [(place, each) for place, each in named() if isinstance(each, ast.Name) and each.id.isupper()]

    assert len(constants) > 8
    for place, each in constants:
        module = importlib.import_module(place.partition(":")[0].removesuffix(".py").replace("/", "."))
        assert catalogue.get(getattr(module, each.id)), f"{place}: {each.id} = marked(…), then: make translations"


def all_errors(kind: type[CaskError] = CaskError) -> Iterator[type[CaskError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from all_errors(each)


def test_every_title_and_every_description_of_an_option_has_its_german(catalogue: Catalog) -> None:
    titles = {each.title for each in all_errors() if each.__module__.startswith("app.")}
    titles |= {title for _, title, *_ in error_handlers.HTTP_FAILURES.values()}
    hints = {str(field.description) for kind in PARAMS_OF_TASK.values() for field in kind.model_fields.values()}

    assert {words for words in titles | hints if not catalogue.get(words)} == set(), "marked(…), make translations"


def test_numbers_in_german_words_have_the_digits_of_the_english(catalogue: Catalog) -> None:
    for message in catalogue:
        if isinstance(message.id, str) and message.id:
            found = [sorted(each[0] for each in PLACEHOLDER.finditer(text)) for text in (message.id, message.string)]
            assert found[0] == found[1], message.id
