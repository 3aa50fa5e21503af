"""The places of the navigation, in reading order. Who adds a page adds a line; its template extends layout.html."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flask import current_app

from app.pages.sentences import marked


@dataclass(frozen=True, slots=True)
class Place:
    """One link: the endpoint of its page and the English words on it, which ``layout.html`` translates."""

    endpoint: str
    words: str


PLACES = (
    Place("pages.try_image", marked("Try an image")),
    Place("pages.jobs", marked("Jobs")),
    Place("pages.models", marked("Models")),
    Place("pages.capacity", marked("Capacity")),
    Place("openapi.swagger", marked("API")),
)


def there() -> Iterable[Place]:
    """Those whose page this app has."""
    left_out = {"pages.jobs"} if current_app.extensions["settings"].jobs == "off" else set()
    known = current_app.view_functions.keys() - left_out
    return [place for place in PLACES if place.endpoint in known]
