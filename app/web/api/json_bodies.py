"""JSON as RFC 8259 has it, and stricter where readers disagree: what is ambiguous is refused, and never guessed."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from app.errors import RequestError
from app.texts import Text

MAX_SHOWN_CHARACTERS = 80
# Half of a surrogate pair, written as an escape. Whether it really is one is looked at only where this is found.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def kind_of(value: Any) -> str:
    """What JSON calls this value (RFC 8259, section 3), for people who do not know Python's names."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    kinds: dict[type, str] = {dict: "an object", list: "an array", str: "a string"}
    return kinds.get(type(value), "a number")


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
        raise RequestError("The body is not JSON: byte %(start)s is not UTF-8.", hint=hint, start=error.start) from None
    except ValueError as error:
        raise RequestError("The body is not JSON: %(reason)s.", hint=hint, reason=_words(error)) from None
    return document


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = Counter(name for name, _ in pairs)
        twice = names.most_common(1)[0][0]
        raise ValueError(
            Text("the key %(name)s stands more than once in one object", name=ascii(twice[:MAX_SHOWN_CHARACTERS]))
        )
    return found


def _number(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError(
            Text("the number %(value)s is larger than any that can be kept", value=text[:MAX_SHOWN_CHARACTERS])
        )
    return found


def _refuse_constant(name: str) -> NoReturn:
    # Python reads NaN and Infinity, which are no JSON (RFC 8259, section 6).
    raise ValueError(Text("%(name)s is not a JSON number", name=name))


def _words(error: ValueError) -> str:
    if error.args and isinstance(error.args[0], Text):
        return error.args[0]
    # Python's own words speak of a setting of the interpreter.
    return Text("a number has more than 4300 digits") if "integer string conversion" in str(error) else str(error)
