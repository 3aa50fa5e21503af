"""What is large and the same for many comes compressed to those who take it, and is found unchanged in both forms."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.servers import Answer, Server

PATHS = (
    "/openapi.json",
    "/v1/models",
    "/v1/jobs",
    "/static/js/answer.js",
    "/static/favicon.svg",
    "/docs/assets/swagger-ui.css",
)


def ask(server: Server, path: str, accepts: str, **headers: str) -> Answer:
    return server.ask(path, headers={"Accept-Encoding": accepts, **headers})


@pytest.mark.parametrize("path", PATHS)
def test_both_forms_hold_the_same_and_differ_by_what_is_accepted(served: Server, path: str) -> None:
    plain, packed = ask(served, path, "identity"), ask(served, path, "br, gzip;q=0.8")

    assert (plain.status, packed.status) == (200, 200)
    assert plain.headers["Content-Encoding"] is None
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    for answer in (plain, packed):
        assert "Accept-Encoding" in answer.headers["Vary"]


def test_the_description_becomes_a_fraction(served: Server) -> None:
    assert len(ask(served, "/openapi.json", "gzip").body) * 8 < len(ask(served, "/openapi.json", "identity").body)


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/v1/jobs"])
@pytest.mark.parametrize("first", ["gzip", "identity"])
@pytest.mark.parametrize("then", ["gzip", "identity"])
def test_what_is_unchanged_is_304_in_either_form(served: Server, path: str, first: str, then: str) -> None:
    tag = ask(served, path, first).headers["ETag"]

    again = ask(served, path, then, **{"If-None-Match": tag})
    other = ask(served, path, then, **{"If-None-Match": 'W/"other"'})

    assert tag.startswith('W/"')
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == tag
    assert "Accept-Encoding" in again.headers["Vary"]
    assert other.status == 200


@pytest.mark.parametrize("accepts", ["gzip;q=0", "gzip; q=0.000, br", "br", ""])
def test_whoever_takes_no_gzip_gets_none(served: Server, accepts: str) -> None:
    assert ask(served, "/openapi.json", accepts).headers["Content-Encoding"] is None


def test_predictions_and_pages_stay_as_they_are(served: Server, sample_path: Path) -> None:
    headers = {"Content-Type": "image/jpeg", "Accept-Encoding": "gzip"}

    assert served.ask("/v1/detect", sample_path.read_bytes(), headers).headers["Content-Encoding"] is None
    assert ask(served, "/models", "gzip").headers["Content-Encoding"] is None


def test_a_part_of_a_file_is_a_part_of_what_it_is(served: Server) -> None:
    whole = ask(served, "/docs/assets/swagger-ui.css", "identity").body

    part = ask(served, "/docs/assets/swagger-ui.css", "gzip", Range="bytes=100-199")

    assert (part.status, part.body) == (206, whole[100:200])
