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


def _has_lost_plus(text: str) -> bool:
    """Whether blanks stand where nobody breaks a line: lines that a shell has joined are all of one length."""
    parts = [len(each) for each in text.split(" ") if each]
    if len(parts) < 2 or len(text.split()) != len(parts):
        return False
    whole, blanks = sum(parts), len(parts) - 1
    if len(set(parts[:-1])) > 1:
        return True
    return parts[0] % 4 > 0 and whole % 4 > 0 and (whole + blanks) % 4 == 0


def _decode_other_forms(text: str) -> bytes:
    if _has_lost_plus(text.strip()):
        raise ValueError("it has blanks where + was: a form or an address was decoded; write + as %2B there")
    bare = "".join(text.split()).translate(FROM_URL_SAFE).rstrip("=")
    if not bare.isascii():
        raise ValueError("it holds characters that are not ASCII")
    if len(bare) % 4 == 1:
        raise ValueError(f"{len(bare)} characters cannot be whole bytes: it was cut off or altered")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error:
        raise ValueError("it holds characters that base64 does not have") from None
