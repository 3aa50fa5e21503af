"""Examples of a model with code: stored when it is added, compared at each load, and a difference keeps it out."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.engine.batcher import Limits
from app.engine.worker import Workers
from app.errors import GoldenCheckError, ModelLoadError
from app.model_code import adding, served
from app.model_code.adding import NewCode
from app.model_code.differences import difference
from app.model_code.served import CodeModel
from app.models.manifests import CodeSpec, Manifest
from tests.unit.model_code import folders

MIXED = """
    import os

    from cask import Image, Model, Refused


    class Mixed(Model):
        def load(self, folder):
            self.factor = float((folder / "factor.txt").read_text()) if os.environ["LANG"] else 0.0

        def predict(self, photo: list[Image], *, power: int = 1) -> list[dict[str, float] | Refused]:
            return [
                {"mean": self.factor * float(each.pixels.mean()) ** power} if each.width > 2 else Refused("too small")
                for each in photo
            ]
"""


def png(width: int, value: int = 200) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, width, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = folders.write(tmp_path / "source", MIXED, factor="1.0")
    examples = made / "examples"
    examples.mkdir()
    encoded = base64.b64encode(png(8)).decode()
    (examples / "01.json").write_text(json.dumps({"photo": encoded, "power": 2}))
    (examples / "02.png").write_bytes(png(8, 50))
    (examples / "02.expected.json").write_text('{"mean": 50.01}')
    (examples / "03.json").write_text(json.dumps({"items": [{"photo": encoded}, {"photo": encoded}]}))
    (examples / "04.png").write_bytes(png(2))
    return made


def load(manifest: Manifest) -> CodeModel:
    return served.load(manifest, is_allowed=True, threads=1)


@pytest.fixture
def added(source: Path, tmp_path: Path) -> Manifest:
    return adding.add(NewCode(source, "mixed", "1"), tmp_path / "store")


@pytest.fixture
def model(added: Manifest) -> Iterator[CodeModel]:
    loaded = load(added)
    yield loaded
    loaded.close()


def test_missing_answers_are_stored_and_told(source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = adding.add(NewCode(source, "mixed", "1"), tmp_path / "store", say=said.append).directory / "examples"
    stored = {path.name: json.loads(path.read_text()) for path in made.glob("*.expected.json")}

    assert stored == {
        "01.expected.json": {"mean": 40000.0},
        "02.expected.json": {"mean": 50.01},
        "03.expected.json": [{"mean": 200.0}, {"mean": 200.0}],
        "04.expected.json": {"refused": "too small"},
    }
    told = [line for line in said if "had no expected answer" in line]
    assert [line.split()[0] for line in told] == ["examples/01.json", "examples/03.json", "examples/04.png"]


def test_loaded_model_warms_up_and_gives_its_stored_answers(model: CodeModel) -> None:
    model.warm_up()
    model.golden_check()


def test_answer_that_differs_refuses_the_model(source: Path, tmp_path: Path) -> None:
    (source / "examples" / "02.expected.json").write_text('{"mean": 51.0}')
    with pytest.raises(GoldenCheckError) as raised:
        adding.add(NewCode(source, "mixed", "1"), tmp_path / "store")

    assert "examples/02.png is not answered as stored: the answer.mean is 50.0, stored is 51.0" in raised.value.message
    assert not list((tmp_path / "store").glob("*"))
    assert adding.add(NewCode(source, "mixed", "1", limits=CodeSpec(tolerance=0.05)), tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("05.json", b'{"photo": "%%%"}', "photo is no base64 text"),
        ("05.json", b'{"photo": 3}', "photo is no base64 text"),
        ("05.json", b"{}", "photo is missing"),
        ("05.json", b"[", "Expecting value"),
        ("05.json", b"[]", "it is no JSON object"),
        ("05.json", b'{"items": []}', "items is no list of objects"),
        ("05.json", b'{"power": "a", "photo": "' + base64.b64encode(png(3)) + b'"}', "power is 'a'"),
        ("05.jpg", b"junk", "photo: "),
        ("01.jpg", b"junk", "two examples 01"),
        ("02.expected.json", b"[", "02.expected.json cannot be read"),
    ],
)
def test_example_that_cannot_be_asked_is_named(source: Path, tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (source / "examples" / name).write_bytes(data)
    with pytest.raises(GoldenCheckError) as raised:
        adding.add(NewCode(source, "mixed", "1"), tmp_path / "store")

    assert said in str(raised.value.message)
    assert name[:2] in str(raised.value.message)


def test_example_at_which_the_model_fails_refuses_it(source: Path, tmp_path: Path) -> None:
    (source / "factor.txt").write_text("1e308")
    with pytest.raises(GoldenCheckError, match=r"examples/01\.json: predict failed: .*inf where a finite number"):
        adding.add(NewCode(source, "mixed", "1"), tmp_path / "store")


def test_version_whose_examples_differ_here_serves_nobody_and_leaves_no_process(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("1.0")
    made = folders.write(tmp_path / "source", MIXED.replace('folder / "factor.txt"', f'folder / "{outside}"'))
    (made / "examples").mkdir()
    (made / "examples" / "01.png").write_bytes(png(8))
    manifest = adding.add(NewCode(made, "mixed", "1"), tmp_path / "store")
    outside.write_text("2.0")
    loaded: list[CodeModel] = []

    def keep(manifest: Manifest) -> CodeModel:
        loaded.append(load(manifest))
        return loaded[-1]

    workers = Workers((), keep, threads=1, max_queue_size=8, limits=lambda _: Limits())
    with pytest.raises(ModelLoadError, match=r"examples/01\.png is not answered as stored"):
        workers.hold(manifest)

    assert loaded[0].running.pid == 0
    assert workers.slots[manifest.key].state == "failed"


def picture(value: int, changed: int = 0, level: int = 6) -> str:
    pixels = np.full((20, 20), value, np.uint8)
    pixels.reshape(-1)[:changed] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=level)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("stored", "now", "said"),
    [
        (1.0, 1.0009, ""),
        (1.0, 1.002, "the answer is 1.002, stored is 1.0"),
        (2000, 2001, ""),
        (True, 1, "the answer is 1, stored is true"),
        (None, 0, "the answer is 0, stored is null"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "the answer.a[1] is 3, stored is 2"),
        ({"a": 1}, {"a": 1, "b": 2}, 'the answer is {"a": 1, "b": 2}, stored is {"a": 1}'),
        ([1], [1, 2], "the answer is [1, 2], stored is [1]"),
        ("x", "y", 'the answer is "y", stored is "x"'),
        (picture(9), picture(9, changed=4, level=0), ""),
    ],
)
def test_difference_is_told_by_place_and_values(stored: Any, now: Any, said: str) -> None:
    assert difference(stored, now, 0.001) == said


@pytest.mark.parametrize("now", [picture(9, changed=5), picture(9)[:60], "x"])
def test_other_pictures_differ(now: str) -> None:
    assert difference(picture(9), now, 0.001)
