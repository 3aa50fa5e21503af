"""What a person prefers, remembered in a cookie: asked for once in the address (``?lang=de``), kept from then on."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Response, after_this_request, g, request, url_for

# Long enough to be forgotten; a person who comes back after a year is asked by their browser again.
REMEMBERED_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Preference:
    """One choice among ``values``; ``name`` is both the parameter of the address and the cookie."""

    name: str
    values: tuple[str, ...]

    def chosen(self) -> str | None:
        """What this person chose, now or earlier; None where they never did. A choice made now is remembered."""
        key = f"preference_{self.name}"
        if key not in g:
            asked = self._known(request.args.get(self.name))
            if asked:
                after_this_request(lambda response: self._remember(response, asked))
            g.setdefault(key, asked or self._known(request.cookies.get(self.name)))
        found: str | None = g.get(key)
        return found

    def _known(self, value: str | None) -> str | None:
        return value if value in self.values else None

    def _remember(self, response: Response, value: str) -> Response:
        # Not HttpOnly: the script sets the same one. It says nothing about a person that others may not know.
        response.set_cookie(
            self.name,
            value,
            max_age=REMEMBERED_SECONDS,
            path=url_for("pages.try_image"),
            secure=request.is_secure,
            samesite="Lax",
        )
        return response


# As the system says (auto), or as chosen.
COLOURS = Preference("colours", ("auto", "light", "dark"))
LANGUAGE = Preference("lang", ("en", "de"))


def vary() -> None:
    """Say to caches that the answer depends on who asks."""
    if "varies" not in g:
        g.varies = True
        after_this_request(_vary)


def _vary(response: Response) -> Response:
    response.vary.update(("Accept-Language", "Cookie"))
    return response
