"""The wire protocol: what was sent arrives, and every way the bytes can be wrong has a name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine import protocol
from app.engine.protocol import HEAD, Frame, FrameType, Head, ProtocolError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def head(
    magic: bytes = b"CASK", version: int = protocol.VERSION, kind: int = 1, meta_bytes: int = 2, payload_bytes: int = 0
) -> bytes:
    return HEAD.pack(magic, version, kind, 0, meta_bytes, payload_bytes)


class Stream:
    """Bytes that come to an end, as a connection does."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_exactly(self, count: int) -> bytes:
        if count > len(self.data):
            raise EOFError
        found, self.data = self.data[:count], self.data[count:]
        return found


@given(st.sampled_from(FrameType), st.dictionaries(st.text(), JSON, max_size=4), st.binary(max_size=200))
def test_frame_arrives_as_it_was_sent(kind: FrameType, meta: dict[str, object], payload: bytes) -> None:
    sent = Frame(kind, meta, payload)

    stream = Stream(b"".join(protocol.encode(sent)))

    assert protocol.read_frame(stream.read_exactly) == sent
    assert stream.data == b""


def test_frames_follow_each_other_without_a_gap() -> None:
    frames = [Frame(FrameType.PREDICT, {"id": number}, bytes(number)) for number in range(3)]
    stream = Stream(b"".join(buffer for frame in frames for buffer in protocol.encode(frame)))

    read = [protocol.read_frame(stream.read_exactly) for _ in frames]

    assert read == frames


def test_payload_is_not_copied() -> None:
    payload = memoryview(bytearray(100))

    assert protocol.encode(Frame(FrameType.PREDICT, {}, payload))[-1] is payload


def test_payload_is_counted_in_bytes_whatever_its_items_are() -> None:
    payload = memoryview(bytearray(24)).cast("d")

    first = protocol.encode(Frame(FrameType.PREDICT, {}, payload))[0]

    assert protocol.decode_head(first[: HEAD.size]) == Head(FrameType.PREDICT, 2, 24)


def test_head_with_another_magic_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"magic is b'HTTP', expected b'CASK'"):
        protocol.decode_head(head(magic=b"HTTP"))


def test_head_of_another_release_is_refused() -> None:
    with pytest.raises(ProtocolError, match="version is 1, expected 2: web tier and engine are of different releases"):
        protocol.decode_head(head(version=1))


def test_head_with_an_unknown_type_is_refused() -> None:
    with pytest.raises(ProtocolError, match="type 99 is unknown"):
        protocol.decode_head(head(kind=99))


def test_head_that_claims_too_large_a_meta_is_refused() -> None:
    with pytest.raises(ProtocolError, match="meta has 8388609 bytes, at most 8388608"):
        protocol.decode_head(head(meta_bytes=protocol.MAX_META_BYTES + 1))


def test_head_that_claims_too_large_a_payload_is_refused() -> None:
    with pytest.raises(ProtocolError, match="payload has 268435457 bytes, at most 268435456"):
        protocol.decode_head(head(payload_bytes=protocol.MAX_PAYLOAD_BYTES + 1))


@pytest.mark.parametrize("size", [0, 1, HEAD.size - 1, HEAD.size + 1])
def test_head_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"a head has 20 bytes, got {size}"):
        protocol.decode_head((head() + b"x")[:size])


@pytest.mark.parametrize("meta", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{}x"])
def test_meta_that_is_not_json_is_refused(meta: bytes) -> None:
    with pytest.raises(ProtocolError, match="meta is not JSON"):
        protocol.decode_meta(meta)


@pytest.mark.parametrize("value", [[], "text", 1, None, True])
def test_meta_that_is_not_an_object_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError, match=rf"meta is {type(value).__name__}, expected an object"):
        protocol.decode_meta(json.dumps(value).encode())


@given(st.integers(min_value=0))
def test_frame_that_is_cut_off_ends_as_the_reader_says(length: int) -> None:
    whole = b"".join(protocol.encode(Frame(FrameType.PREDICT, {"id": 1}, b"pixels")))
    stream = Stream(whole[: length % len(whole)])

    with pytest.raises(EOFError):
        protocol.read_frame(stream.read_exactly)


@given(st.binary(min_size=HEAD.size, max_size=80))
def test_any_bytes_are_a_frame_or_are_refused(data: bytes) -> None:
    stream = Stream(data)

    try:
        frame = protocol.read_frame(stream.read_exactly)
    except (ProtocolError, EOFError):
        return
    assert isinstance(frame.type, FrameType)


def test_too_large_a_meta_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ProtocolError, match="meta has"):
        protocol.encode(Frame(FrameType.ANSWER, {"text": "x" * protocol.MAX_META_BYTES}))


def test_numbers_that_json_does_not_know_are_not_sent() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        protocol.encode(Frame(FrameType.ANSWER, {"score": float("nan")}))
