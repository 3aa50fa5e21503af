"""The places of the navigation, in reading order. Who adds a page adds a line; its template extends layout.html."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flask import current_app

from app.texts import marked


@dataclass(frozen=True, slots=True)
class Place:
    """One link: the endpoint of its page and the English words on it, which ``layout.html`` translates.

    ``below``: endpoints of the pages that belong to it.
    """

    endpoint: str
    words: str
    below: tuple[str, ...] = ()

    def current(self, endpoint: str | None) -> str:
        """The value of ``aria-current`` on the page of this endpoint; empty on pages of other places."""
        if endpoint == self.endpoint:
            return "page"
        return "true" if endpoint in self.below else ""


PLACES = (
    Place("pages.try_image", marked("Images")),
    Place("pages.jobs", marked("Jobs"), below=("pages.job",)),
    Place("pages.models", marked("Models")),
    Place("pages.capacity", marked("Capacity")),
    Place("openapi.swagger", marked("API"), below=("openapi.redoc", "rpc.page", "rpc.browse")),
)


def there() -> Iterable[Place]:
    """Those whose page this app has."""
    left_out = {"pages.jobs"} if current_app.extensions["settings"].jobs == "off" else set()
    known = current_app.view_functions.keys() - left_out
    return [place for place in PLACES if place.endpoint in known]
