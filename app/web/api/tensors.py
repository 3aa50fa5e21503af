"""Tensors of the Open Inference Protocol v2: in JSON, and as binary data behind it. Knows no HTTP and no models.

https://github.com/kserve/open-inference-protocol and, for binary data,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr

from app.errors import RequestError
from app.texts import gettext_noop
from app.web.api import base64_images, bodies, json_bodies

# Each text is preceded by its length in bytes.
LENGTH = struct.Struct("<I")
NUMBERS = {
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    "BOOL": np.dtype("?"),
}

Side = Annotated[int, Field(strict=True, ge=0, le=2**31), BeforeValidator(bodies.whole)]
# Clients add members and parameters of their own; those that we do not know are ignored, and null is left out.
Parameters = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]
NoneIsEmpty = BeforeValidator(lambda value: [] if value is None else value)
AS_THE_PROTOCOL = ConfigDict(extra="ignore", frozen=True)


class TensorError(RequestError):
    """A tensor is not what it says, or not what the model takes."""

    code = "tensor_invalid"
    title = "A tensor is not usable"


class InputTensor(BaseModel):
    """One tensor as it was sent; ``data`` is None where it lies in the binary part of the body."""

    model_config = AS_THE_PROTOCOL

    name: StrictStr
    datatype: StrictStr
    shape: list[Side] = Field(min_length=1, max_length=8, fail_fast=True)
    parameters: Parameters = Field(default_factory=dict)
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """One tensor that the caller wants."""

    model_config = AS_THE_PROTOCOL

    name: StrictStr
    parameters: Parameters = Field(default_factory=dict)


class InferRequest(BaseModel):
    """The JSON part of a request for inference."""

    model_config = AS_THE_PROTOCOL

    id: StrictStr | None = None
    parameters: Parameters = Field(default_factory=dict)
    # The first fault is told; millions would take gigabytes.
    inputs: list[InputTensor] = Field(min_length=1, fail_fast=True)
    outputs: Annotated[list[RequestedOutput], NoneIsEmpty] = Field(default_factory=list, fail_fast=True)


def read_texts(tensor: InputTensor, binary: memoryview | None) -> list[bytes]:
    """The elements of a BYTES tensor; in JSON they are base64. Raises TensorError."""
    if binary is not None:
        elements = _split(tensor, binary)
    else:
        elements = [_decode(tensor, each) for each in flat(tensor.data or [])]
    check_count(tensor, len(elements))
    return elements


def check_count(tensor: InputTensor, count: float) -> None:
    """Raises TensorError where it has more or fewer elements than its shape says."""
    wanted = math.prod(tensor.shape)
    if count != wanted:
        raise TensorError(
            "%(name)s has %(count)s elements; its shape %(shape)s says %(wanted)s.",
            name=tensor.name,
            count=int(count) if count == int(count) else count,
            shape=tensor.shape,
            wanted=wanted,
        )


def read_pixels(tensor: InputTensor, binary: memoryview | None) -> list[np.ndarray]:
    """The images of a UINT8 tensor, n × height × width × 3 or one image of height × width × 3. Raises TensorError."""
    shape = tensor.shape
    if len(shape) not in (3, 4) or shape[-1] != 3 or 0 in shape:
        raise TensorError(
            "%(name)s has the shape %(shape)s.",
            hint="n × height × width × 3, or height × width × 3; RGB.",
            name=tensor.name,
            shape=shape,
        )
    values = np.frombuffer(binary, np.uint8) if binary is not None else _numbers(tensor)
    check_count(tensor, values.size)
    return list(values.reshape(shape if len(shape) == 4 else [1, *shape]))


def binary_parts(tensors: Sequence[InputTensor], body: memoryview) -> list[memoryview | None]:
    """The binary data of each tensor in order, None for those in JSON. Raises TensorError."""
    parts: list[memoryview | None] = []
    for tensor in tensors:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            parts.append(None)
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(body) or tensor.data is not None:
            raise TensorError(
                "%(name)s says it has %(size)s bytes; %(count)s are left in the body.",
                name=tensor.name,
                size=f"{size!r:.40}",
                count=len(body),
            )
        parts.append(body[:size])
        body = body[size:]
    if len(body):
        raise TensorError(
            "%(count)s bytes of the body belong to no tensor.", hint="See binary_data_size.", count=len(body)
        )
    return parts


def write(name: str, values: np.ndarray, *, is_binary: bool) -> tuple[dict[str, Any], bytes]:
    """One output tensor: its JSON, and its binary data (empty where the data is in the JSON).

    Elements of BYTES are texts, or bytes, which are base64 in JSON.
    """
    datatype = "BYTES" if values.dtype == object else next(key for key, kind in NUMBERS.items() if kind == values.dtype)
    head: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(values.shape)}
    if not is_binary:
        rows = [
            base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in values.ravel().tolist()
        ]
        return {**head, "data": rows}, b""
    data = _join(values) if datatype == "BYTES" else values.tobytes()
    return {**head, "parameters": {"binary_data_size": len(data)}}, data


def wants_binary(requested_output: RequestedOutput | None, parameters: Mapping[str, Any]) -> bool:
    """Whether an output goes behind the JSON: as the output says, else as the request says. Raises TensorError."""
    own = requested_output.parameters.get("binary_data") if requested_output is not None else None
    wanted = parameters.get("binary_data_output") if own is None else own
    if wanted is None:
        return False
    if not isinstance(wanted, bool):
        raise TensorError("binary_data is %(value)s.", hint="It is true or false.", value=ascii(str(wanted)[:40]))
    return wanted


def _join(values: np.ndarray) -> bytes:
    texts = [each if isinstance(each, bytes) else str(each).encode() for each in values.ravel()]
    return b"".join(LENGTH.pack(len(text)) + text for text in texts)


def _split(tensor: InputTensor, binary: memoryview) -> list[bytes]:
    elements = []
    while len(binary):
        if len(binary) < LENGTH.size:
            raise TensorError("%(name)s ends within the length of an element.", name=tensor.name)
        (size,) = LENGTH.unpack(binary[: LENGTH.size])
        if size > len(binary) - LENGTH.size:
            raise TensorError(
                "%(name)s says an element has %(size)s bytes; it ends before that.", name=tensor.name, size=size
            )
        elements.append(bytes(binary[LENGTH.size : LENGTH.size + size]))
        binary = binary[LENGTH.size + size :]
    return elements


def flat(data: list[Any]) -> list[Any]:
    """The elements row by row; nesting is allowed by the protocol. Deeper lists than a shape has sides stay lists."""
    for _ in range(8):
        if not any(isinstance(each, list) for each in data):
            break
        data = [one for each in data for one in (each if isinstance(each, list) else [each])]
    return data


def _decode(tensor: InputTensor, text: Any) -> bytes:
    hint = gettext_noop("In JSON, BYTES are base64; or send binary data.")
    if not isinstance(text, str):
        raise TensorError(
            "An element of %(name)s is %(found)s, not base64 text.",
            hint=hint,
            name=tensor.name,
            found=json_bodies.kind_of(text),
        )
    try:
        return base64_images.decode(text)
    except ValueError as error:
        raise TensorError(
            "An element of %(name)s is not base64 text: %(error)s.", hint=hint, name=tensor.name, error=error
        ) from None


def _numbers(tensor: InputTensor) -> np.ndarray:
    values = [bodies.whole(each) for each in flat(tensor.data or [])]
    if not all(type(each) is int and 0 <= each <= 255 for each in values):
        raise TensorError("%(name)s holds something else than whole numbers from 0 to 255.", name=tensor.name)
    return np.array(values, np.uint8)
