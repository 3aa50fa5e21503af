"""The models of examples/ behind the real Apache: at most twenty lines each, and right answers to pictures we draw."""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.model_code import adding
from app.model_code.adding import NewCode
from examples.models.drawn_shapes import LABELS, Shape, draw
from tests import servers
from tests.servers import ROOT, Answer, Server

EXAMPLES = ROOT / "examples" / "models"
NAMES = ("table", "segment", "yolo")
DRAWN = [draw(random.Random(seed), 3) for seed in range(100, 112)]  # noqa: S311


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    folder = servers.make_state_dir()
    for name in NAMES:
        adding.add(NewCode(EXAMPLES / name, name, "1"), folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    with servers.running(MODELS_DIR=str(store), REQUEST_MAX_WAIT_SECONDS="60") as running:
        yield running


def ask(server: Server, name: str, document: Any) -> Answer:
    kind = {"Content-Type": "application/json"}
    return server.ask(f"/v1/models/{name}/predict", json.dumps(document).encode(), kind, timeout=60)


def photo(picture: Image.Image) -> dict[str, str]:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {"photo": base64.b64encode(file.getvalue()).decode()}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/model.py")), ids=lambda path: path.parent.name)
def test_user_writes_one_file_of_at_most_twenty_lines(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip()]

    assert len(lines) <= 20


def test_row_of_a_table_is_answered_with_a_number(server: Server) -> None:
    flats = [{"area_m2": 60, "rooms": 2, "heating": "gas"}, {"area_m2": 60.0, "rooms": 2}]
    answer = ask(server, "table", {"items": [{"flat": flat} for flat in flats]})

    assert answer.status == 200, answer.body
    assert answer.json["results"] == [pytest.approx(830, rel=0.05)] * 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rooms": 0}, "flat.rooms is 0."),
        ({"rooms": 2.5}, "flat.rooms is 2.5."),
        ({"area_m2": "60"}, "flat.area_m2 is '60'."),
        ({"heating": "coal"}, "flat.heating is 'coal'."),
        ({"floor": 3}, "flat.floor is unknown."),
    ],
)
def test_row_that_does_not_fit_is_refused_by_its_field(server: Server, change: dict[str, Any], said: str) -> None:
    answer = ask(server, "table", {"flat": {"area_m2": 60, "rooms": 2, **change}})

    assert (answer.status, answer.json["detail"]) == (422, said)


def test_mask_is_right_for_nine_of_ten_pixels(server: Server) -> None:
    answer = ask(server, "segment", {"items": [photo(picture) for picture, _, _ in DRAWN]})

    assert answer.status == 200, answer.body
    right = []
    for result, (_, mask, _) in zip(answer.json["results"], DRAWN, strict=True):
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["png"]))))
        right.append((found == np.asarray(mask)).mean())
        assert {row["label"]: row["pixels"] for row in result["areas"]} == {
            ("ground", *LABELS)[number]: count
            for number, count in zip(*np.unique(found, return_counts=True), strict=True)
        }
    assert np.mean(right) > 0.9


def test_yolo_finds_what_was_drawn(server: Server) -> None:
    answer = ask(server, "yolo", {"items": [photo(picture) for picture, _, _ in DRAWN]})

    assert answer.status == 200, answer.body
    drawn = [shape for _, _, shapes in DRAWN for shape in shapes]
    found = [
        is_found(shape, rows)
        for rows, (_, _, shapes) in zip(answer.json["results"], DRAWN, strict=True)
        for shape in shapes
    ]
    assert sum(found) >= 0.75 * len(drawn)
    assert sum(map(len, answer.json["results"])) <= 1.2 * len(drawn)


def is_found(shape: Shape, rows: list[dict[str, Any]]) -> bool:
    label, x, y, half = shape
    sides = (x - half, y - half, x + half, y + half)
    return any(row["label"] == LABELS[label] and overlap(sides, tuple(row["box"].values())) > 0.5 for row in rows)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The area that both have, as a part of what they have together."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)


def test_batch_is_answered_as_one_by_one(server: Server) -> None:
    several = ask(server, "yolo", {"items": [photo(picture) for picture, _, _ in DRAWN[:4]]}).json["results"]
    alone = [ask(server, "yolo", photo(picture)).json["results"][0] for picture, _, _ in DRAWN[:4]]

    assert [[row["label"] for row in rows] for rows in several] == [[row["label"] for row in rows] for rows in alone]
    for rows, others in zip(several, alone, strict=True):
        for row, other in zip(rows, others, strict=True):
            assert list(row["box"].values()) == pytest.approx(list(other["box"].values()), abs=0.1)


def test_example_is_added_taken_in_and_asked_as_the_command_says(server: Server, store: Path) -> None:
    """``make example NAME=tickets``, twice, and the line for curl that it prints."""
    ours = servers.environment("test", PORT=str(server.port), STATE_DIR=str(server.state_dir), MODELS_DIR=str(store))
    call = [EXAMPLES / "add.sh", "tickets"]
    for _ in range(2):
        done = subprocess.run(call, env=ours, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.strip().startswith("curl "))
    asked = subprocess.run(
        ["bash", "-c", f"{line} -s"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert json.loads(asked.stdout)["results"] == [
        [{"label": "shipping", "score": 0.5}, {"label": "billing", "score": 0}]
    ]


def test_example_that_is_none_is_refused_with_the_names() -> None:
    done = subprocess.run([EXAMPLES / "add.sh", "nothing"], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "NAME=nothing is no example. There are: brightness faces read-text segment" in done.stderr
