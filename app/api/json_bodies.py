"""JSON as RFC 8259 has it, and stricter where readers disagree: what is ambiguous is refused, and never guessed."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from app.errors import RequestError

MAX_SHOWN_CHARACTERS = 80
# Half of a surrogate pair, written as an escape. Whether it really is one is looked at only where this is found.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def load(body: bytes, hint: str = "") -> Any:
    """The document. Raises RequestError, with ``hint``, for what is no JSON.

    Refused are also: NaN and infinities, however they are written (1e999), a key that stands twice in an object,
    and texts that are no Unicode (half a surrogate pair). Each of them is read differently by different programs.
    """
    try:
        text = body.decode("utf-8-sig")
        document = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_number, object_pairs_hook=_object_without_duplicates
        )
        # The first look is many times as fast, and most bodies end with it.
        if "\\u" in text and SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise RequestError("The JSON is nested too deeply.", hint=hint) from None
    except UnicodeEncodeError:
        raise RequestError("A text of the JSON holds half a surrogate pair.", hint=hint) from None
    except UnicodeDecodeError as error:
        raise RequestError(f"The body is not JSON: byte {error.start} is not UTF-8.", hint=hint) from None
    except ValueError as error:
        raise RequestError(f"The body is not JSON: {_words(error)}.", hint=hint) from None
    return document


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = Counter(name for name, _ in pairs)
        twice = names.most_common(1)[0][0]
        raise ValueError(f"the key {twice[:MAX_SHOWN_CHARACTERS]!a} stands more than once in one object")
    return found


def _number(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError(f"the number {text[:MAX_SHOWN_CHARACTERS]} is larger than any that can be kept")
    return found


def _refuse_constant(name: str) -> NoReturn:
    # Python reads NaN and Infinity, which are no JSON (RFC 8259, section 6).
    raise ValueError(f"{name} is not a JSON number")


def _words(error: ValueError) -> str:
    text = str(error)
    # Python's own words speak of a setting of the interpreter.
    return "a number has more than 4300 digits" if "integer string conversion" in text else text
