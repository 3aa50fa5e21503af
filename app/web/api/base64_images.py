"""Images in base64, in any of the forms in which libraries write it. Knows no HTTP."""

from __future__ import annotations

import base64
import binascii

# The alphabet of RFC 4648, section 5, in that of section 4.
FROM_URL_SAFE = str.maketrans("-_", "+/")
DATA = "data:"
BASE64 = ";base64"


def decode(text: str) -> bytes:
    """The bytes. Raises ValueError with the reason.

    Accepted besides the plain form (RFC 4648, section 4): lines (MIME, `base64` without `-w0`, Android) and other
    white space, the alphabet for addresses, missing padding, and a ``data:`` address in front.
    """
    if text[: len(DATA)].lower() == DATA:
        text = _without_address(text)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return _decode_other_forms(text)


def _without_address(text: str) -> str:
    head, comma, rest = text.partition(",")
    if not comma or not head.lower().rstrip().endswith(BASE64):
        raise ValueError("the data: address does not say ;base64 before a comma")
    return rest


def _decode_other_forms(text: str) -> bytes:
    bare = "".join(text.split()).translate(FROM_URL_SAFE).rstrip("=")
    if not bare.isascii():
        raise ValueError("it holds characters that are not ASCII")
    if len(bare) % 4 == 1:
        raise ValueError(f"{len(bare)} characters cannot be whole bytes: it was cut off or altered")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error:
        raise ValueError("it holds characters that base64 does not have") from None
