"""Files of labels as people have them: each gives its labels, or its own sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.errors import ModelLoadError
from app.runtimes import architectures
from app.runtimes.importing import label_files

CAT_DOG = ("cat", "dog")

# File name, content, its labels or words of the refusal.
FILES: dict[str, tuple[str, bytes, tuple[str, ...] | str]] = {
    "plain": ("l.txt", b"cat\ndog\n", CAT_DOG),
    "byte order mark": ("l.txt", b"\xef\xbb\xbfcat\ndog\n", CAT_DOG),
    "utf-16 of Windows": ("l.txt", "cat\r\ndog\r\n".encode("utf-16"), CAT_DOG),
    "CRLF": ("l.txt", b"cat\r\ndog\r\n", CAT_DOG),
    "old Mac": ("l.txt", b"cat\rdog\r", CAT_DOG),
    "empty lines": ("l.txt", b"\ncat\n\n  dog \n\n", CAT_DOG),
    "U+2028 inside": (
        "l.txt",
        "cat\u2028tom\ndog\x0chot\nemu\x85x\n".encode(),
        ("cat\u2028tom", "dog\x0chot", "emu\x85x"),
    ),
    "JSON list": ("l.json", b'["cat",\n "dog"]', CAT_DOG),
    "JSON list in .txt with a mark": ("l.txt", b'\xef\xbb\xbf[\n"cat",\n"dog"\n]\n', CAT_DOG),
    "index_to_name.json": ("index_to_name.json", b'{"1": "dog", "0": "cat"}', CAT_DOG),
    "imagenet_class_index.json": ("l.json", b'{"0": ["n01", "cat"], "1": ["n02", "dog"]}', CAT_DOG),
    "class_to_idx": ("l.json", b'{"dog": 1, "cat": 0}', CAT_DOG),
    "Hugging Face": ("config.json", json.dumps({"id2label": {"0": "cat", "1": "dog"}, "hidden": 3}).encode(), CAT_DOG),
    "more than ten in a dictionary": (
        "l.json",
        json.dumps({str(n): f"class {n}" for n in (*range(9, -1, -1), 10)}).encode(),
        tuple(f"class {n}" for n in range(11)),
    ),
    "numbered": ("l.txt", b"0 cat\n1 dog\n", CAT_DOG),
    "numbered from 1, with colons": ("l.txt", b"1: cat\n2: dog\n", CAT_DOG),
    "numbered, in another order": ("l.txt", b"1,dog\n0,cat\n", CAT_DOG),
    "numbers in some lines only": ("l.txt", b"2 euro\ncent\n", ("2 euro", "cent")),
    "synonyms with commas": ("l.txt", b"tench, Tinca tinca\ngoldfish\n", ("tench, Tinca tinca", "goldfish")),
    "numbered with dots": ("l.txt", b"1. cat\n2. dog\n", CAT_DOG),
    "numbered in brackets": ("l.txt", b"(0) cat\n(1) dog\n", CAT_DOG),
    "sizes with dots": ("l.txt", b"0.5 mm\n1.5 mm\n", ("0.5 mm", "1.5 mm")),
    "numbers behind": ("l.csv", b"dog,1\ncat,0\n", CAT_DOG),
    "quoted": ("l.csv", b'"cat"\n"dog"\n', CAT_DOG),
    "files put together": ("l.txt", "cat\n\ufeffdog\u200b\n".encode(), CAT_DOG),
    "COCO's categories, out of order": (
        "l.json",
        b'{"categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}]}',
        CAT_DOG,
    ),
    "COCO's categories with gaps": (
        "l.json",
        b'{"categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]}',
        "not from 0 to 1 without gaps",
    ),
    "an id that is no number": ("l.json", b'[{"id": "1", "name": "cat"}]', "holds the id"),
    "TensorFlow's map": ("l.pbtxt", b'item {\n  id: 1\n  name: "cat"\n}\n', "is a map of labels of TensorFlow"),
    "repeated": ("l.txt", b"crane\ncrane\n", ("crane", "crane")),
    "numbers with gaps": ("l.txt", b"1 person\n3 car\n", "not from 0 to 1 without gaps"),
    "numbers that are labels": ("l.txt", b"10 euro\n20 euro\n", "Then write a JSON list"),
    "dictionary with gaps": ("l.json", b'{"0": "cat", "2": "dog"}', "without gaps"),
    "ultralytics' YAML": ("data.yaml", b"nc: 2\nnames:\n  0: cat\n  1: dog\n", "is YAML, as ultralytics"),
    "YAML in .txt": ("l.txt", b"train: images\nnames: [cat, dog]\n", "is YAML"),
    "half a JSON list": ("l.txt", b'["cat",\n"dog"\n', "begins like JSON and is none"),
    "JSON of other things": ("l.json", b'{"model": "x"}', "does not give a name to each number"),
    "JSON numbers": ("l.json", b"[1, 2]", "holds 1 where a label should be"),
    "an empty label": ("l.json", b'["cat", ""]', "holds '', which is no label"),
    "nothing": ("l.txt", b"\xef\xbb\xbf\r\n \n", "is empty"),
    "Latin-1": ("l.txt", "Bär\n".encode("latin-1"), "cannot be read: 'utf-8' codec"),
    "zero bytes": ("l.txt", b"cat\x00\ndog", "which is no label"),
    "deep JSON": ("l.json", b"[" * 100_000, "begins like JSON and is none"),
}


@pytest.mark.parametrize(("name", "content", "expected"), FILES.values(), ids=FILES)
def test_each_gives_its_labels_or_its_own_sentence(
    tmp_path: Path, name: str, content: bytes, expected: tuple[str, ...] | str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    if isinstance(expected, tuple):
        assert label_files.read(path) == expected
        return
    with pytest.raises(ModelLoadError) as caught:
        label_files.read(path)
    assert expected in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.startswith(f"LABELS {path} ")


def test_labels_that_stand_twice_are_told() -> None:
    (sentence,) = label_files.repeated(("crane", "cat", "crane"))

    assert sentence.startswith("the label 'crane' stands there 2 times")


@pytest.mark.parametrize("background", ["background", "BACKGROUND", "__background__", "_Background_"])
def test_the_background_is_one_however_it_is_written(background: str) -> None:
    ssd, fcos = architectures.find("ssd300_vgg16"), architectures.find("fcos_resnet50_fpn")

    assert architectures.output_names(ssd, (background, "cone")) == ("__background__", "cone")
    # It is a class like another one where the architecture counts none.
    assert architectures.output_names(fcos, (background, "cone")) == (background, "cone")


def test_a_background_that_is_not_first_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"label 1 of 2 \(counted from 0\)"):
        architectures.output_names(architectures.find("ssd300_vgg16"), ("cone", "background"))
