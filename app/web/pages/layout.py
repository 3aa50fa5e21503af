"""What layout.html needs on every page, whichever part of the app renders it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import current_app, request, url_for

from app import __version__
from app.web.pages import languages, navigation, preferences


def context() -> dict[str, Any]:
    """Names for templates. Functions, so that a page without the layout neither asks nor varies by them."""
    return {
        "accepted_images": accepted_images,
        "cask_version": __version__,
        "chosen_colours": chosen_colours,
        "language": languages.current,
        "language_names": tuple(languages.NAMES.items()),
        "places": navigation.there,
        "script_words": languages.script_words,
        "switched": switched,
    }


def accepted_images() -> str:
    """Media types for a file field, so that it offers no picture that would be refused."""
    return ",".join(f"image/{name}" for name in current_app.extensions["settings"].images_formats)


def chosen_colours() -> str:
    """``auto``, ``light`` or ``dark``; auto follows the system."""
    preferences.vary()
    return preferences.COLOURS.chosen() or "auto"


def switched(name: str, value: str) -> str:
    """The address of the same page with another preference; of the first page where this one answers a form."""
    if request.method != "GET":
        return f"{url_for('pages.try_image')}?{urlencode({name: value})}"
    return f"{request.script_root}{request.path}?{urlencode({**request.args.to_dict(), name: value})}"
