"""Other servers than Apache: PATH_PREFIX, whether or not the proxy takes it out of the address."""

from __future__ import annotations

from typing import Any

import pytest

from app.web.middleware.path_prefix import Forwarded, Mounted


def seen(middleware: Any, **environ: str) -> tuple[str, str]:
    """SCRIPT_NAME and PATH_INFO as the application gets them."""
    found: dict[str, str] = {"SCRIPT_NAME": "", **environ}
    middleware(found, None)
    return found["SCRIPT_NAME"], found["PATH_INFO"]


def nothing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/vision", "/"),
        ("/vision/", "/"),
        ("/vision/v1/models", "/v1/models"),
        ("/v1/models", "/v1/models"),
        ("/visionary", "/visionary"),
        ("/", "/"),
    ],
)
def test_a_mount_is_taken_out_of_the_address_where_it_stands(path: str, below: str) -> None:
    assert seen(Mounted(nothing, "/vision"), PATH_INFO=path) == ("/vision", below)


def test_apaches_word_is_where_we_are_mounted() -> None:
    assert seen(Forwarded(nothing), PATH_INFO="/x", HTTP_X_FORWARDED_PREFIX="/vision") == ("/vision", "/x")
    assert seen(Forwarded(nothing), PATH_INFO="/x") == ("", "/x")
