"""What to write instead of a type that cannot be sent."""

from __future__ import annotations

import collections.abc
import typing
from typing import Any

# One after the other, and nothing else is known of them.
SEQUENCES = (
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.Set,
    collections.abc.MutableSet,
    collections.deque,
    set,
    frozenset,
)
MAPPINGS = (
    dict,
    collections.abc.Mapping,
    collections.abc.MutableMapping,
    collections.defaultdict,
    collections.OrderedDict,
)
# By module and name, since nothing is imported for an advice: the type, and what to do with its values.
OTHERS = {
    "datetime.datetime": ("str", "read it with datetime.fromisoformat"),
    "datetime.date": ("str", "read it with date.fromisoformat"),
    "decimal.Decimal": ("str", "read it with Decimal"),
    "uuid.UUID": ("str", "read it with UUID"),
    "pathlib.Path": ("bytes", "send the content of the file"),
    "_io.BytesIO": ("bytes", "send the content of the file"),
    "torch.Tensor": ("Annotated[np.ndarray, Shape(None, 4)]", "read it with torch.from_numpy"),
    "builtins.bytearray": ("bytes", ""),
}
NUMPY = {"f": "float", "i": "int", "u": "int", "b": "bool", "U": "str", "S": "bytes"}


def instead(hint: Any) -> str:
    """What to write, in words; empty where nothing that can be sent is near."""
    written, more = near(hint)
    return ", and ".join(filter(None, (written, more)))


def near(hint: Any) -> tuple[str, str]:
    """A type that can be sent and is near to this one, and what else to do; either may be empty."""
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if (inside := item(hint)) is not hint:
        return f"list[{named(inside)}]", ""
    if origin is tuple or hint is complex:
        return "", "a dataclass with a field for each part"
    if origin in SEQUENCES:
        return "list[float]", ""
    if origin in MAPPINGS and len(arguments) == 2:
        return f"dict[str, {named(arguments[1])}]", ""
    if isinstance(hint, typing.NewType):
        return named(hint.__supertype__), ""
    return _of_class(hint) if isinstance(hint, type) else ("", "")


def _of_class(hint: type) -> tuple[str, str]:
    if typing.is_typeddict(hint) or (issubclass(hint, tuple) and hasattr(hint, "_fields")):
        fields = list(getattr(hint, "_fields", hint.__annotations__))
        first = f", and read its fields as {hint.__name__.lower()}.{fields[0]}" if fields else ""
        return "", f"it as a dataclass: @dataclass above class {hint.__name__}, without a base{first}"
    if hint.__module__ == "numpy" and hasattr(hint, "dtype"):
        return NUMPY.get(_kind_of_numpy(hint), ""), ""
    names = (f"{base.__module__}.{base.__qualname__}" for base in hint.__mro__)
    return next((OTHERS[name] for name in names if name in OTHERS), ("", ""))


def item(hint: Any) -> Any:
    """What is in a hint for several values that is no list; the hint itself where it is for one."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    is_open = origin is tuple and len(arguments) == 2 and arguments[1] is ...
    return arguments[0] if arguments and (origin in SEQUENCES or is_open) else hint


def named(hint: Any) -> str:
    """A type as people write it."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    text = str(hint)
    for module in ("typing.", "collections.abc.", "collections.", "model."):
        text = text.replace(module, "")
    return text


def _kind_of_numpy(hint: Any) -> str:
    try:
        return str(hint().dtype.kind)
    except TypeError:
        return ""
