"""Numbers that arrive as text, in an address, a form, a header or the environment. A leaf.

Python reads ``1_0`` as 10. Nobody who sends that means it, and other languages read 1 or refuse it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationInfo, ValidatorFunctionWrapHandler, field_validator
from pydantic_core import PydanticCustomError


class PlainNumbers(BaseModel):
    """Base of what is read from texts: a number with an underscore in it is none."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _without_underscores(cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        found = validate(value)
        if isinstance(value, str) and "_" in value and type(found) in (int, float):
            kind, word = ("int", "integer") if isinstance(found, int) else ("float", "number")
            reason = (
                f"Input should be a valid {word}, unable to parse string as {'an' if kind == 'int' else 'a'} {word}"
            )
            raise PydanticCustomError(f"{kind}_parsing", reason)
        return found
