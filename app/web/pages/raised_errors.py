"""Which failures a caller can meet, by the code that raises them: message, hint and title are words to translate.

A message that stands in a call (``RequestError("The image has %(size)s bytes.", size=…)``) needs no mark of its own;
one that is a name does: see ``gettext_noop`` in ``app/texts.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# Rooms whose failures callers hear.
ROOMS = (
    "auth",
    "cache",
    "decoding",
    "ensembles",
    "image_headers",
    "inference",
    "jobs",
    "web/api",
    "web/middleware",
    "web/pages",
)
FILES = (
    *("errors.py", "models/routing.py", "storage/sqlite.py"),
    *("engine/batcher.py", "engine/client.py", "engine/server.py", "engine/worker.py"),
    *("runtimes/cam.py", "runtimes/grad_cam.py", "runtimes/device_memory.py"),
)
# Builtins and libraries' own; and what only commands of operators say, in English.
UNHEARD = re.compile(
    r"(Value|Type|Key|OS|Protocol|EOF|Connection\w*|Timeout|NotImplemented|Operational|Database|Runtime|File\w+|Read"
    r"|Manifest|ModelLoad|Settings|Token|ChangeRefused)Error"
)


def paths() -> list[Path]:
    """The files."""
    rooms = (path for room in ROOMS for path in (ROOT / "app" / room).rglob("*.py"))
    return sorted([*rooms, *(ROOT / "app" / name for name in FILES)])


def words(path: Path) -> Iterator[str]:
    """Every message, hint and title of a failure in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield from (str(each.value) for each in said(node) if isinstance(each, ast.Constant) and each.value)
        elif isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
            yield from (title for each in node.body if (title := _title(each)))


def said(call: ast.Call) -> Iterator[ast.expr]:
    """Message and hint of a failure that is made here; nothing for other calls."""
    name = ast.unparse(call.func).rpartition(".")[2]
    # ``excerpts.fitting`` raises the failure that it is told.
    if (name.endswith("Error") and not UNHEARD.fullmatch(name)) or name == "fitting":
        yield from call.args[:1]
        yield from (keyword.value for keyword in call.keywords if keyword.arg == "hint")


def _title(node: ast.stmt) -> str:
    if (
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "title"
        and isinstance(node.value, ast.Constant)
    ):
        return str(node.value.value)
    return ""
