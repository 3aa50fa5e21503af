"""Forms and addresses as they were sent: a broken form says what is broken, and no field wins silently over another."""

from __future__ import annotations

from typing import Any, TypeVar

from flask import Flask, Request
from werkzeug.datastructures import MultiDict
from werkzeug.formparser import FormDataParser

from app.errors import RequestError
from app.texts import Text

MAX_SHOWN_CHARACTERS = 80
# Where Werkzeug's reader stands when the body ends before the first boundary.
BEFORE_FIRST_PART = "State.PREAMBLE"
THE_FORM = Text("the form")
T = TypeVar("T")


class StrictFormParser(FormDataParser):
    """Werkzeug's reader of forms, which by itself takes a form that it cannot read for an empty one."""

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*values, **{**named, "silent": False})

    def parse(self, *values: Any, **named: Any) -> Any:
        """As Werkzeug's. Raises RequestError where the form is broken."""
        try:
            return super().parse(*values, **named)
        except ValueError as error:
            raise _broken(error) from None


class FormRequest(Request):
    """A request whose form is read strictly."""

    form_data_parser_class = StrictFormParser


def init_app(app: Flask) -> None:
    """Read every form strictly."""
    app.request_class = FormRequest


def once(fields: MultiDict[str, T], where: str = THE_FORM) -> dict[str, T]:
    """The fields, or files, by name. Raises RequestError for one that stands twice, or a part without a name."""
    for name, values in fields.lists():
        if not isinstance(name, str):
            raise RequestError("A part of the form has no name.", hint='Content-Disposition: form-data; name="…"')
        if len(values) > 1:
            shown = ascii(name[:MAX_SHOWN_CHARACTERS])
            raise RequestError(
                "%(name)s stands %(count)s times in %(where)s.",
                hint="Say it once.",
                name=shown,
                count=len(values),
                where=where,
            )
    return fields.to_dict()


def _broken(error: ValueError) -> RequestError:
    text = str(error)
    if isinstance(error, UnicodeError):
        return RequestError(
            "The form holds bytes that are no UTF-8.",
            hint="Send images as files of a multipart form, and all names in UTF-8.",
        )
    if "boundary" in text.lower():
        return RequestError(
            "The Content-Type multipart/form-data names no boundary.",
            hint="Let the HTTP library write the Content-Type of a form: it knows the boundary that it puts in.",
        )
    if BEFORE_FIRST_PART in text:
        return RequestError(
            "The boundary that the Content-Type names does not occur in the body.",
            hint="Let the HTTP library write the Content-Type of a form: it knows the boundary that it puts in.",
        )
    if "beyond" in text:
        return RequestError(
            "The form ends before its closing boundary.",
            hint="It was cut off on its way, or the last line `--boundary--` was not written.",
        )
    return RequestError(
        "The form cannot be read: %(reason)s.", hint="See RFC 7578 for its shape.", reason=text[:MAX_SHOWN_CHARACTERS]
    )
