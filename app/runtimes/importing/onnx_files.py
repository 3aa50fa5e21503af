"""What an ONNX file says of itself, read without a library: operators, versions, files beside it, its exporter's notes.

The format is a protocol buffer (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); weights are stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

# Numbers of the fields that matter, by message.
_PRODUCER, _PRODUCER_VERSION, _GRAPH, _OPSET, _NOTE = 2, 3, 7, 8, 14
_NODE, _INITIALIZER = 1, 5
_OP_TYPE, _ATTRIBUTE, _OP_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH = 5, 6
_EXTERNAL = 13
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# The operators' own domain has two names.
_ONNX_DOMAINS = ("", "ai.onnx")
_MOST_DEPTH = 16


class CutError(ValueError):
    """The file ends too early, or is no protocol buffer."""


@dataclass(frozen=True)
class External:
    """Weights in another file: its name as the model says it, and the bytes that it must have at least."""

    location: str
    end: int


@dataclass
class Facts:
    """What stands in the file. ``operators``: those of other domains than ONNX's own, as ``domain.Name``."""

    producer: str = ""
    opset: int = 0
    operators: set[str] = field(default_factory=set)
    external: set[External] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)
    nodes: int = 0


def read(content: memoryview) -> Facts:
    """The facts of a file. Raises CutError for what is cut off or no ONNX."""
    facts, producer = Facts(), ["", ""]
    for number, value in _fields(content):
        if number in (_PRODUCER, _PRODUCER_VERSION):
            producer[number - _PRODUCER] = _text(value)
        elif number == _GRAPH:
            _read_graph(_bytes(value), facts, 0)
        elif number == _OPSET:
            domain, version = _pair(value)
            if domain in _ONNX_DOMAINS:
                facts.opset = int(version or 0)
        elif number == _NOTE:
            key, note = _pair(value)
            facts.notes[str(key)] = str(note)
    facts.producer = " ".join(filter(None, producer))
    if not facts.nodes:
        raise CutError("it holds no operators")
    return facts


def _read_graph(graph: memoryview, facts: Facts, depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise CutError("its graphs lie in each other more than 16 deep")
    for number, value in _fields(graph):
        if number == _NODE:
            facts.nodes += 1
            _read_node(_bytes(value), facts, depth)
        elif number == _INITIALIZER:
            _read_tensor(_bytes(value), facts)


def _read_node(node: memoryview, facts: Facts, depth: int) -> None:
    name, domain = "", ""
    for number, value in _fields(node):
        if number == _OP_TYPE:
            name = _text(value)
        elif number == _OP_DOMAIN:
            domain = _text(value)
        elif number == _ATTRIBUTE:
            for kind, inner in _fields(_bytes(value)):
                if kind == _ATTRIBUTE_TENSOR:
                    _read_tensor(_bytes(inner), facts)
                elif kind == _ATTRIBUTE_GRAPH:
                    _read_graph(_bytes(inner), facts, depth + 1)
    if domain not in _ONNX_DOMAINS:
        facts.operators.add(f"{domain}.{name}")


def _read_tensor(tensor: memoryview, facts: Facts) -> None:
    said = dict(_pair(value) for number, value in _fields(tensor) if number == _EXTERNAL)
    if said:
        sizes = [str(said.get(key, "0")) for key in ("offset", "length")]
        end = sum(int(size) for size in sizes if size.isdigit())
        facts.external.add(External(str(said.get("location", "")), end))


def _pair(value: memoryview | int) -> tuple[str, str | int]:
    """The two fields of an entry: texts, or a text and a number."""
    found: dict[int, str | int] = {
        number: each if isinstance(each, int) else _text(each) for number, each in _fields(_bytes(value))
    }
    return str(found.get(1, "")), found.get(2, "")


def _bytes(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise CutError("a number stands where a message belongs")
    return value


def _text(value: memoryview | int) -> str:
    return bytes(_bytes(value)).decode(errors="replace")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field: bytes, or a number."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == _BYTES:
            size, place = _varint(message, place)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise CutError(f"byte {place} of a message begins no field")
        if size > len(message) - place:
            raise CutError(f"a field of {size} bytes has only {len(message) - place}")
        yield number, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise CutError("it ends within a number")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise CutError("a number has more than ten bytes")
