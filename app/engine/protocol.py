"""The bytes between web tier and engine: a fixed head, a JSON meta part, tensors. Never pickle. A leaf.

Head (20 bytes, big-endian): magic ``CASK`` · version u8 · type u8 · reserved u16 · meta bytes u32 · payload bytes u64.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

MAGIC = b"CASK"
# 2: a payload holds named tensors and bytes, see ``tensors``; it was the pixels of one image.
VERSION = 2
HEAD = struct.Struct("!4sBBHIQ")
MAX_META_BYTES = 8 * 1024 * 1024
# The largest thing we send is one decoded image: 50 megapixels of RGB would be 150 MB, but images are scaled before.
MAX_PAYLOAD_BYTES = 256 * 1024 * 1024

Buffer = bytes | bytearray | memoryview


class ProtocolError(Exception):
    """The bytes are not a frame. The connection that brought them must be closed."""


class FrameTooLargeError(ProtocolError):
    """What is to be sent does not fit into a frame. Nothing was sent."""


class FrameType(IntEnum):
    """What a frame asks or answers."""

    PREDICT = 1
    ANSWER = 2
    ERROR = 3
    STATUS = 4
    STATUS_ANSWER = 5
    CHANGE = 6
    PROGRESS = 7
    CHANGED = 8
    SHADOW = 9
    CALL = 10


# json.dumps would make one for each frame.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Head:
    """The first 20 bytes of a frame, checked."""

    type: FrameType
    meta_bytes: int
    payload_bytes: int


@dataclass(frozen=True)
class Frame:
    """One message. ``payload`` holds what ``meta["tensors"]`` names, see ``tensors``; empty where it names nothing."""

    type: FrameType
    meta: dict[str, Any]
    payload: Buffer = b""


def encode(frame: Frame) -> list[Buffer]:
    """The frame as buffers to send in order; the payload is not copied. Raises FrameTooLargeError."""
    meta = _ENCODER.encode(frame.meta).encode()
    payload_bytes = memoryview(frame.payload).nbytes
    try:
        _check_sizes(len(meta), payload_bytes)
    except ProtocolError as error:
        raise FrameTooLargeError(str(error)) from None
    head = HEAD.pack(MAGIC, VERSION, frame.type, 0, len(meta), payload_bytes)
    return [head + meta, frame.payload] if payload_bytes else [head + meta]


def decode_head(data: Buffer) -> Head:
    """Check the first 20 bytes. Raises ProtocolError naming the field that is wrong."""
    if len(data) != HEAD.size:
        raise ProtocolError(f"a head has {HEAD.size} bytes, got {len(data)}")
    magic, version, type_number, _reserved, meta_bytes, payload_bytes = HEAD.unpack(data)
    if magic != MAGIC:
        raise ProtocolError(f"magic is {magic!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise ProtocolError(f"version is {version}, expected {VERSION}: web tier and engine are of different releases")
    try:
        frame_type = FrameType(type_number)
    except ValueError:
        raise ProtocolError(f"type {type_number} is unknown") from None
    _check_sizes(meta_bytes, payload_bytes)
    return Head(frame_type, meta_bytes, payload_bytes)


def decode_meta(data: Buffer) -> dict[str, Any]:
    """Read the JSON part. Raises ProtocolError when it is not a JSON object."""
    try:
        meta = json.loads(str(data, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"meta is not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise ProtocolError(f"meta is {type(meta).__name__}, expected an object")
    return meta


def read_frame(read_exactly: Callable[[int], Buffer]) -> Frame:
    """Read one frame from a function that returns exactly so many bytes or raises. Raises ProtocolError."""
    head = decode_head(read_exactly(HEAD.size))
    meta = decode_meta(read_exactly(head.meta_bytes))
    payload = read_exactly(head.payload_bytes) if head.payload_bytes else b""
    return Frame(head.type, meta, payload)


def _check_sizes(meta_bytes: int, payload_bytes: int) -> None:
    if meta_bytes > MAX_META_BYTES:
        raise ProtocolError(f"meta has {meta_bytes} bytes, at most {MAX_META_BYTES} are accepted")
    if payload_bytes > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"payload has {payload_bytes} bytes, at most {MAX_PAYLOAD_BYTES} are accepted")
