"""Which failures a caller can meet, by the code that raises them: message, hint and title are words to translate.

A message that stands in a call (``RequestError("The image has %(size)s bytes.", size=…)``) needs no mark of its own;
one that is a name does: see ``marked`` in ``app/texts.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Rooms whose failures callers hear.
ROOMS = ("api", "cache", "decoding", "guards", "heads", "jobs", "pages")
FILES = (
    *("budget.py", "colours.py", "database.py", "ensembles.py", "errors.py", "images.py", "options.py"),
    *("predictions.py", "routing.py", "tokens.py", "upstream_answers.py", "upstreams.py"),
    *("engine/batcher.py", "engine/client.py", "engine/server.py", "engine/worker.py"),
    *("vision/cam.py", "vision/grad_cam.py", "vision/memory.py"),
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
    if name.endswith("Error") and not UNHEARD.fullmatch(name):
        yield from call.args[:1]
        yield from (each.value for each in call.keywords if each.arg == "hint")


def _title(node: ast.stmt) -> str:
    if (
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "title"
        and isinstance(node.value, ast.Constant)
    ):
        return str(node.value.value)
    return ""
