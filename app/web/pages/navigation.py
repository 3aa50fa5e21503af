"""The places of the navigation, in reading order. Who adds a page adds a line; its template extends layout.html."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flask import current_app

from app.texts import gettext_noop


@dataclass(frozen=True, slots=True)
class NavigationEntry:
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


# Places of plugins, which come after ours.
EXTENSION = "navigation"

PLACES = (
    NavigationEntry("pages.try_image", gettext_noop("Images")),
    NavigationEntry("pages.jobs", gettext_noop("Jobs"), below=("pages.job",)),
    NavigationEntry("pages.models", gettext_noop("Models"), below=("pages.try_model", "pages.ask_with_form")),
    NavigationEntry("pages.capacity", gettext_noop("Capacity")),
    NavigationEntry("openapi.swagger", gettext_noop("API"), below=("openapi.redoc", "rpc.page", "rpc.browse")),
)


def there() -> Iterable[NavigationEntry]:
    """Those whose page this app has."""
    left_out = {"pages.jobs"} if current_app.extensions["settings"].jobs == "off" else set()
    known = current_app.view_functions.keys() - left_out
    return [place for place in (*PLACES, *current_app.extensions.get(EXTENSION, ())) if place.endpoint in known]
