"""What predict promises becomes a schema; what cannot be sent is refused with file, line, name and what to write."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import numpy as np
import pytest

import cask
from app.model_code import kinds, model_class, signature
from app.model_code.model_class import SignatureError
from tests.unit.model_code import folders


@pytest.fixture(autouse=True)
def _modules_as_before() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("model", None)


def read(folder: Path) -> signature.Signature:
    return signature.read(model_class.find(folder), folder)


def test_hints_become_schemas(tmp_path: Path) -> None:
    found = read(folders.tickets(tmp_path)).to_dict()

    label = {
        "type": "object",
        "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
        "required": ["label", "score"],
        "additionalProperties": False,
    }
    assert found == {
        "api": 1,
        "inputs": {"text": {"type": "string", "maxLength": 40}},
        "options": {"top": {"type": "integer", "minimum": 1, "maximum": 5, "default": 1}},
        "answer": {"type": "array", "items": label},
        "max_batch_size": 16,
        "max_wait_ms": 0.0,
        "threads": 1,
        "description": "Sorts a support ticket into a queue.",
    }


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclasses.dataclass
class House:
    rooms: Annotated[int, cask.Range(1)]
    size: Size
    note: str | None = None


@pytest.mark.parametrize(
    ("hint", "sent", "value"),
    [
        (str, "a", "a"),
        (float, 3, 3.0),
        (bool, True, True),
        (bytes, "YWI=", b"ab"),
        (list[int], [1, 2], [1, 2]),
        (int | None, None, None),
        (Literal["a", 2], 2, 2),
        (Size, "s", Size.SMALL),
        (House, {"rooms": 3, "size": "l"}, House(3, Size.LARGE)),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Annotated[str, cask.Choice("de", "en")], "de", "de"),
    ],
)
def test_value_crosses_both_ways(tmp_path: Path, hint: Any, sent: Any, value: Any) -> None:
    kind = kinds.kind_of(hint, tmp_path)

    assert kind.read(sent) == value
    assert kind.read(kind.write(value)) == value


def test_array_has_the_promised_sides_and_type(tmp_path: Path) -> None:
    kind = kinds.kind_of(Annotated[np.ndarray, cask.Shape(None, 2, dtype="int16")], tmp_path)
    array = kind.read([[1, 2], [3, 4]])

    assert (array.dtype, array.shape) == (np.int16, (2, 2))
    assert kind.schema["items"]["minItems"] == 2
    assert kind.schema["items"]["items"]["maximum"] == 32767
    assert kind.write(array) == [[1, 2], [3, 4]]
    # A list without rows, too, has two columns.
    assert kind.read([]).shape == (0, 2)
    with pytest.raises(ValueError, match="promised"):
        kind.write(np.zeros((2, 3)))


def test_mask_is_sent_as_a_picture_and_areas(tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    classes = np.array([[0, 2, 2], [2, 2, 0]], np.uint8)
    sent = kinds.kind_of(cask.Mask, tmp_path).write(cask.Mask(classes, ["road", "sky", "tree"]))
    picture = Image.open(BytesIO(kinds.PLAIN[bytes].read(sent["png"])))

    assert sent["areas"] == [{"label": "tree", "pixels": 4}, {"label": "road", "pixels": 2}]
    assert np.array_equal(np.asarray(picture), classes)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, "3"),
        (int, True),
        (float, float("nan")),
        (str, 3),
        (list[int], "12"),
        (House, {"rooms": 1}),
        (cask.Mask, np.zeros((2, 2))),
        (cask.Mask, cask.Mask(np.full((1, 1), 7, np.uint8), ["one"])),
        (cask.Embedding, cask.Embedding([float("inf")])),
        (Literal["a"], "b"),
    ],
)
def test_answer_off_its_type_is_no_answer(tmp_path: Path, hint: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        kinds.kind_of(hint, tmp_path).write(value)


# What a newcomer writes, the line of model.py that is named, and what is said.
MISTAKES = [
    ("self, text) -> list[str]", 4, "the parameter 'text' has no type"),
    ("self, text: str) -> list[str]", 4, "write text: list[str]"),
    (
        "self, text: list) -> list[str]",
        4,
        "positional parameters are lists with one item for each caller: write text: list[str]",
    ),
    ("self, x: np.ndarray) -> list[str]", 4, "write x: list[Annotated[np.ndarray, Shape(None, 4)]]"),
    (
        "self, text: list[str], top: int = 1) -> list[str]",
        4,
        "has a default, as options have; write it behind a star: *, top: int = 1",
    ),
    ("self, text: list[str], top: list[int] = 1) -> list[str]", 4, "the parameter 'top' has a default"),
    ("text: list[str]) -> list[str]", 4, "predict has no self; write def predict(self, …)"),
    (") -> list[str]", 4, "predict has no self"),
    (
        "self, text: list[str]) -> str",
        4,
        "it returns str; predict returns a list with one answer for each item: write -> list[str]",
    ),
    ("self, text: list[str]) -> dict[str, float]", 4, "it returns dict[str, float]; predict returns a list"),
    ("self, text: list[str])", 4, "it returns nothing; predict returns a list"),
    (
        "self, photo: list[PIL.Image]) -> list[str]",
        4,
        "PIL.Image is a module, not a type; write from cask import Image",
    ),
    ("self, x: list[Range(1, 5)]) -> list[str]", 4, "narrows a type; write Annotated[int, …] around it"),
    ("self, x: list[Annotated[str, Text]]) -> list[str]", 4, "Text stands without its values; write Text(…)"),
    ("self, x: list[Annotated[str, Labels('/etc/passwd')]]) -> list[str]", 4, "lies outside of the model's folder"),
    ("self, x: list[str], *, n: Annotated[int, Range(1, 5)] = 9) -> list[str]", 4, "9 where 1 to 5 was promised"),
    (
        "self, x: list[str], *, n: Annotated[str, Text(1)] = '') -> list[str]",
        4,
        "0 characters where 1 to ∞ were promised",
    ),
    ("self) -> list[str]", 4, "takes no items"),
    ("self, text: list[complex]) -> list[str]", 4, "the parameter 'text': complex cannot be sent"),
    ("self, text: list[PIL.Image.Image]) -> list[str]", 4, "PIL.Image.Image cannot be sent; use cask.Image"),
    ("self, text: list[dict]) -> list[str]", 4, "dict does not say what is in it; write dict[str, float]"),
    (
        "self, text: list[str]) -> list[tuple[str, float]]",
        4,
        "tuple[str, float] cannot be sent; write a dataclass with a field",
    ),
    ("self, text: list[int | str]) -> list[str]", 4, "only T | None"),
    ("self, text: list[str], *, top: int) -> list[str]", 4, "the option 'top' has no default; write top: int = …"),
    ("self, text: list[str], *, top: int = 'x') -> list[str]", 4, "the default of 'top' does not fit"),
    ("self, text: list[str], **more: int) -> list[str]", 4, "cannot be described"),
    ("self, text: list[str], *,\n        top: set[int] = 0) -> list[str]", 5, "the parameter 'top'"),
    ("self, model: list[str]) -> list[str]", 4, "needs another name"),
    ("self, text: list[Missing]) -> list[str]", 4, "name 'Missing' is not defined"),
    ("self, text: list[np.ndarray]) -> list[str]", 4, "an array needs its sides"),
    (
        "self, text: list[Annotated[str, Labels('no.txt')]]) -> list[str]",
        4,
        "Labels('no.txt'): there is no such file in the model's folder; text files there: none",
    ),
    ("self, text: list[Annotated[str, Range(1, 2)]]) -> list[str]", 4, "Range is for int or float"),
    ("self, pair: list[list[Image]]) -> list[str]", 4, "own parameter"),
]


@pytest.mark.parametrize(("parameters", "line", "said"), MISTAKES)
def test_mistake_is_named_with_its_place_and_what_to_write(
    tmp_path: Path, parameters: str, line: int, said: str
) -> None:
    imports = "import numpy as np, PIL.Image; from typing import Annotated; from cask import *"
    head = f"from __future__ import annotations\n{imports}\n"
    code = f"{head}class Mine(Model):\n    def predict({parameters}:\n        return []\n"
    (tmp_path / "model.py").write_text(code)

    with pytest.raises(SignatureError) as raised:
        read(tmp_path)

    assert said in str(raised.value)
    assert f"{tmp_path / 'model.py'}, line {line}: " in str(raised.value)


class Pair(NamedTuple):
    first: int


class Keys(TypedDict):
    second: int


Name = NewType("Name", str)


@pytest.mark.parametrize(
    ("hint", "advice"),
    [
        (Sequence[int], "list[int]"),
        (Iterable[str], "list[str]"),
        (tuple[str, ...], "list[str]"),
        (set[float], "list[float]"),
        (collections.deque[int], "list[int]"),
        (Sequence, "list[float]"),
        (Mapping[str, float], "dict[str, float]"),
        (dict[int, str], "dict[str, str]"),
        (Name, "str"),
        (np.float32, "float"),
        (np.int64, "int"),
        (bytearray, "bytes"),
        (Path, "bytes, and send the content of the file"),
        (io.BytesIO, "bytes, and send the content of the file"),
        (decimal.Decimal, "str, and read it with Decimal"),
        (datetime.datetime, "str, and read it with datetime.fromisoformat"),
    ],
)
def test_what_is_near_to_a_type_is_advised_and_can_be_sent(hint: Any, advice: str) -> None:
    with pytest.raises(kinds.UnsupportedError) as raised:
        kinds.kind_of(hint, Path())

    assert str(raised.value).endswith(f" cannot be sent; write {advice}")
    kinds.kind_of(eval(advice.partition(",")[0] if ", and" in advice else advice), Path())  # noqa: S307


@pytest.mark.parametrize(("hint", "name", "field"), [(Pair, "Pair", "pair.first"), (Keys, "Keys", "keys.second")])
def test_named_tuples_and_typed_dicts_become_dataclasses(hint: Any, name: str, field: str) -> None:
    said = (
        f"{name} cannot be sent; write it as a dataclass: @dataclass above class {name}, without a base, and read its"
    )

    with pytest.raises(kinds.UnsupportedError) as raised:
        kinds.kind_of(hint, Path())

    assert str(raised.value) == f"{said} fields as {field}"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("self, text: Sequence[int]) -> list[str]", "write text: list[int], or"),
        ("self, text: tuple[str, ...]) -> list[str]", "write text: list[str], or"),
        ("self, text: np.ndarray) -> list[str]", "write text: list[Annotated[np.ndarray, Shape(None, 4)]], or"),
        ("self, text: np.float32) -> list[str]", "write text: list[float], or"),
        ("self, text: list[str]) -> Iterator[str]", "write -> list[str]"),
    ],
)
def test_items_of_a_sequence_are_advised_as_the_list_of_callers(tmp_path: Path, parameters: str, said: str) -> None:
    imports = "import numpy as np\nfrom collections.abc import *\nfrom cask import *\n"
    (tmp_path / "model.py").write_text(f"{imports}class Mine(Model):\n    def predict({parameters}:\n        pass\n")

    with pytest.raises(SignatureError) as raised:
        read(tmp_path)

    assert said in str(raised.value)


NODE = "import dataclasses\n@dataclasses.dataclass\nclass Node:\n    next: 'Node | None' = None\n"
METHOD = "import cask\nclass Mine(cask.Model):\n    {} -> list[int]: return x"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def (", "line 1: invalid syntax"),
        ("x = 1", "one class must derive from cask.Model; there is: none"),
        ("\nimport nowhere_to_be_found", "line 2: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("import sys\nsys.exit(3)", "line 2: SystemExit: 3"),
        (
            "from cask import Model\nclass Mine(Model): pass",
            "line 2: Mine has no method predict; write def predict(self",
        ),
        (
            "import cask\nclass A(cask.Model): pass\nclass B(cask.Model): pass",
            "there is: A in line 2, B in line 3. Leave",
        ),
        (
            "class Mine:\n    def predict(self): pass",
            "line 1: Mine does not derive from cask.Model; write class Mine(Model):",
        ),
        ("from cask import Modell", "line 1: ImportError: cannot import name 'Modell' from 'cask' .*; is it Model?"),
        (
            "import nowhere",
            "line 1: ModuleNotFoundError: No module named 'nowhere'; name its package in requirements.txt",
        ),
        ("from .parts import x", "line 1: ImportError: .*; files beside model.py are imported without the dot"),
        (
            METHOD.format("def load(self): pass\n    def predict(self, x: list[int])"),
            "line 3: load takes (self); write def load",
        ),
        (
            METHOD.format("def __init__(self, x): pass\n    def predict(self, x: list[int])"),
            "line 3: __init__ takes (self, x); write",
        ),
        (
            METHOD.format("@cask.batch\n    def predict(self, x: list[int])"),
            "line 3: TypeError: batch.*; write @batch(max_size=8)",
        ),
        ("class Row:\n    a: int\n" + METHOD.format("def predict(self, x: list[Row])"), "write @dataclass above it"),
        (NODE + METHOD.format("def predict(self, x: list[Node])"), "line 7: the type of x holds itself"),
        ("raise KeyboardInterrupt", "line 1: KeyboardInterrupt"),
        (METHOD.format("@staticmethod\n    def predict(x: list[int])"), "line 4: predict is a staticmethod; write"),
        (METHOD.format("@classmethod\n    def predict(cls, x: list[int])"), "line 4: predict is a classmethod; write"),
        (METHOD.format("async def predict(self, x: list[int])"), "line 3: predict is async; write def predict"),
        (METHOD.format("def predict(self, x: list[int])") + "; yield x", "line 3: predict has a yield; return a list"),
    ],
)
def test_file_that_is_no_model_is_named(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "model.py").write_text(code)

    with pytest.raises(SignatureError, match=re.sub(r"([()?])", r"\\\1", said)):
        read(tmp_path)


def test_base_class_beside_the_model_is_no_second_model(tmp_path: Path) -> None:
    base = "import cask\nclass Base(cask.Model): pass\n"
    mine = "class Mine(Base):\n    def predict(self, x: list[int]) -> list[int]: return x\n"
    (tmp_path / "model.py").write_text(base + mine)

    assert model_class.find(tmp_path).__name__ == "Mine"


def test_missing_file_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="a model with code is a class in a file of that name"):
        model_class.find(tmp_path)
