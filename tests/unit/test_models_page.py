"""What was built from a model, as the API and the page of models tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.models import builds
from app.models.builds import Candidate, Progress, Report
from app.models.manifests import Manifest
from tests import fakes
from tests.fakes import FakeEngine

CANDIDATES = (
    Candidate("torch", "fp32", images_per_second=88.7, verdict="slower than openvino int8"),
    Candidate(
        "openvino", "int8", "i.xml", "a", 1234.5, agreement=0.9987, map_loss=0.0047, is_chosen=True, verdict="chosen"
    ),
    Candidate("aotinductor", "fp32", is_faithful=False, verdict="left out: there is no C++ compiler (g++) here"),
)


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    return fakes.make_app(tmp_path, FakeEngine()).test_client()


@pytest.fixture
def manifest(tmp_path: Path, client: FlaskClient) -> Manifest:
    found: Manifest = client.application.extensions["predictor"].find("detect")
    return found


def write_report(client: FlaskClient, manifest: Manifest, **changes: Any) -> None:
    fields = {"processor": builds.processor(), "versions": builds.versions(), "truth": "objects", **changes}
    report = Report(manifest.key, manifest.digest, images=100, candidates=CANDIDATES, **fields)
    builds.write(builds.folder(state_dir(client), manifest), report)


def state_dir(client: FlaskClient) -> Path:
    found: Path = client.application.extensions["settings"].state_dir
    return found


def build_of(client: FlaskClient, manifest: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/models/{manifest.name}").json["build"]  # type: ignore[index]
    return found


def test_api_says_when_nothing_was_built(client: FlaskClient, manifest: Manifest) -> None:
    assert build_of(client, manifest) == {"state": "none", "step": "", "error": "", "report": None}
    assert "Not built on this machine" in client.get("/models").text


def test_api_gives_every_candidate_with_its_figures(client: FlaskClient, manifest: Manifest) -> None:
    write_report(client, manifest)

    found = build_of(client, manifest)

    assert found["state"] == "current"
    reference, int8, left_out = found["report"]["candidates"]
    assert reference["verdict"] == "slower than openvino int8"
    assert (int8["images_per_second"], int8["agreement"], int8["map_loss"], int8["is_chosen"]) == (
        *(1234.5, 0.9987, 0.0047),
        True,
    )
    assert left_out["images_per_second"] is None
    assert left_out["verdict"].startswith("left out")


def test_a_report_of_another_machine_is_shown_as_that(client: FlaskClient, manifest: Manifest) -> None:
    write_report(client, manifest, processor="another")

    assert build_of(client, manifest)["state"] == "elsewhere"
    assert "Measured on another machine" in client.get("/models").text


def test_candidate_that_could_not_be_computed_has_a_reason_and_no_dashes(
    client: FlaskClient, manifest: Manifest
) -> None:
    write_report(client, manifest)

    table = client.get("/models").text.partition("<table")[2].partition("</table>")[0]

    assert "Left out: there is no C++ compiler" in table
    assert "–" not in table


def test_a_running_build_says_what_it_is_at(client: FlaskClient, manifest: Manifest) -> None:
    folder = builds.folder(state_dir(client), manifest)
    builds.write_progress(folder, Progress("running", "openvino int8: made"))
    lock = builds.lock(state_dir(client))

    found, page = build_of(client, manifest), client.get("/models").text

    assert lock is not None
    lock.close()
    assert (found["state"], found["step"]) == ("running", "openvino int8: made")
    assert "A build is running" in page
    assert "Now: openvino int8: made" in page


def test_a_failed_build_says_why(client: FlaskClient, manifest: Manifest) -> None:
    builds.write_progress(builds.folder(state_dir(client), manifest), Progress("failed", error="No space is left."))

    found = build_of(client, manifest)

    assert (found["state"], found["error"]) == ("failed", "No space is left.")
    assert "No space is left." in client.get("/models").text


def test_page_shows_the_fastest_first_and_why_others_were_not_chosen(client: FlaskClient, manifest: Manifest) -> None:
    write_report(client, manifest)

    page = client.get("/models").text

    assert page.index("openvino <b>int8</b>") < page.index("torch <b>fp32</b>") < page.index("aotinductor <b>fp32</b>")
    assert '<tr class="is-chosen">' in page
    assert "1,230" in page
    assert "13.9" in page
    assert "Left out: there is no C++ compiler (g++) here" in page


@pytest.mark.parametrize(("images", "words"), [(1, "1 image;"), (2, "2 images;")])
def test_count_of_images_that_came_in_is_grammatical(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, images: int, words: str
) -> None:
    fresh = {"mean": 0.5, "reference_mean": None, "psi": None, "by_chance": None, "is_drifted": False}
    drift = {"images": images, "reference_images": 0, "figures": {"size": fresh}}
    golden = {"at": 1.0, "is_passed": True, "error": ""}
    row = FakeEngine._row
    monkeypatch.setattr(FakeEngine, "_row", lambda self, each: row(self, each) | {"drift": drift, "golden": golden})

    page = client.get("/models").text

    assert f"<span>{words} nothing to compare with yet" in page
    assert "–" not in page.partition("<table")[2].partition("</table>")[0]
