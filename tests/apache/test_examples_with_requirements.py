"""Models of examples/ that bring libraries: timm, and two whose weights are in packages. Faces and text are drawn here.

They are installed from the index when they are added, about 100 MB; skipped where no index answers.
"""

from __future__ import annotations

import base64
import difflib
import io
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from app.model_code import adding
from app.model_code.adding import NewCode
from examples.models.drawn_shapes import LABELS, draw
from tests import servers
from tests.servers import ROOT, Answer, Server

EXAMPLES = ROOT / "examples" / "models"
NAMES = ("timm", "faces", "read-text")
# Debian's fonts-dejavu-core, and the one inside Pillow.
FOLDER = Path("/usr/share/fonts/truetype/dejavu")
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono", "")
Colour = tuple[int, int, int]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pip = (sys.executable, "-m", "pip", "--retries", "0", "--timeout", "10", "index", "versions", "timm")
    if subprocess.run(pip, capture_output=True, check=False).returncode:
        pytest.skip("no index of packages answers, or it has no timm")
    folder = servers.make_state_dir()
    for name in NAMES:
        adding.add(NewCode(EXAMPLES / name, name, "1"), folder, say=print)
    with servers.running(MODELS_DIR=str(folder), REQUEST_MAX_WAIT_SECONDS="120") as running:
        yield running
    shutil.rmtree(folder)


def ask(server: Server, name: str, *pictures: Image.Image, **options: Any) -> list[Any]:
    """The results for these pictures."""
    answer = _asked(server, name, {"items": [{"photo": _png(picture)} for picture in pictures], **options})
    assert answer.status == 200, answer.body
    results: list[Any] = answer.json["results"]
    return results


def _asked(server: Server, name: str, document: Any) -> Answer:
    kind = {"Content-Type": "application/json", "X-Request-Timeout": "60"}
    return server.ask(f"/v1/models/{name}/predict", json.dumps(document).encode(), kind, timeout=120)


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_timm_names_the_shape(server: Server) -> None:
    drawn = [draw(random.Random(seed), 1) for seed in range(100, 120)]  # noqa: S311
    results = ask(server, "timm", *(picture for picture, _, _ in drawn), top=2)

    right = [rows[0]["label"] == LABELS[shapes[0][0]] for rows, (_, _, shapes) in zip(results, drawn, strict=True)]
    assert sum(right) >= 18
    assert {len(rows) for rows in results} == {2}


# ── faces ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def draw_face(page: Image.Image, left: int, top: int, size: int, skin: Colour) -> None:
    """A face in a square: hair, eyes with brows, nose, mouth, neck."""
    pen, scale = ImageDraw.Draw(page), size / 240

    def place(*sides: float) -> tuple[float, ...]:
        return tuple(scale * side + (left, top)[number % 2] for number, side in enumerate(sides))

    def oval(x: float, y: float, wide: float, high: float, fill: Colour) -> None:
        pen.ellipse(place(x - wide, y - high, x + wide, y + high), fill=fill)

    dark, darker = (tuple(int(part * share) for part in skin) for share in (0.93, 0.8))
    oval(120, 235, 95, 55, (60, 70, 110))
    pen.rectangle(place(98, 165, 142, 215), fill=darker)
    oval(120, 105, 66, 82, (60, 42, 30))
    oval(120, 118, 54, 70, skin)
    for x in (98, 142):
        oval(x, 106, 17, 11, darker)
        oval(x, 108, 12, 6, (240, 238, 235))
        oval(x, 108, 6, 6, (40, 30, 25))
        pen.arc(place(x - 17, 86, x + 17, 106), 200, 340, fill=(70, 48, 35), width=int(5 * scale))
    pen.polygon(place(116, 104, 124, 104, 134, 140, 106, 140), fill=dark)
    oval(120, 162, 22, 7, (170, 80, 80))
    pen.line(place(99, 162, 141, 162), fill=(110, 45, 45), width=int(3 * scale))


def test_drawn_faces_are_found_where_they_are(server: Server) -> None:
    picture = Image.new("RGB", (640, 400), (150, 160, 170))
    draw_face(picture, 40, 60, 200, (214, 170, 140))
    draw_face(picture, 340, 80, 260, (150, 105, 80))
    empty = [Image.new("RGB", size) for size in ((640, 400), (1, 1), (19, 300), (20, 20))]
    found, *none = ask(server, "faces", picture.filter(ImageFilter.GaussianBlur(1.5)), *empty)

    centres = sorted((row["box"]["x_min"] + row["box"]["x_max"]) / 2 for row in found)
    assert none == [[]] * len(empty)
    assert {row["label"] for row in found} == {"face"}
    assert centres == [pytest.approx(140, abs=20), pytest.approx(470, abs=20)]


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", FONTS)
def test_text_is_read_in_its_place_upright_and_upside_down(server: Server, name: str) -> None:
    path = FOLDER / f"{name}.ttf"
    if name and not path.exists():
        pytest.skip(f"{path} is not there: apt-get install fonts-dejavu-core")
    font = ImageFont.truetype(path, 32) if name else ImageFont.load_default(32)
    picture = Image.new("RGB", (480, 160), "white")
    for text, at in (("Invoice 2047", (30, 30)), ("Total 318.50", (30, 90))):
        ImageDraw.Draw(picture).text(at, text, "black", font)

    upright, turned = ask(server, "read-text", picture, picture.rotate(180))

    for row in turned:
        box = row["box"]
        row["box"] = {"x_min": 480 - box["x_max"], "y_min": 160 - box["y_max"], "x_max": 480 - box["x_min"]}
    for rows in (upright, turned):
        # A letter that two boxes share may be read twice.
        assert difflib.SequenceMatcher(None, words(rows), "Invoice2047Total318.50").ratio() > 0.9, words(rows)
        assert all(0 <= row["box"]["x_min"] < row["box"]["x_max"] <= 480 and row["score"] > 0.6 for row in rows)


@pytest.mark.parametrize("size", [(1, 97), (1, 5000), (5000, 1), (2, 60), (1, 1), (33, 1), (3000, 101)])
def test_narrow_picture_is_answered_in_time(server: Server, size: tuple[int, int]) -> None:
    """The package enlarges the shorter side: 1 × 97 pixels became 52 megapixels."""
    answer = _asked(server, "read-text", {"photo": _png(Image.new("RGB", size, "white"))})

    assert answer.json.get("results") == [[]] or answer.json["code"] == "input_refused", answer.body


def words(rows: list[dict[str, Any]]) -> str:
    """All that was read, line by line, without blanks, which the network leaves out now and then."""
    lines = sorted(rows, key=lambda row: (row["box"]["y_min"] > 80, row["box"]["x_min"]))
    return "".join(row["text"] for row in lines).replace(" ", "")
