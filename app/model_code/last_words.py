"""What a process writes when it crashes in C or is ended because it hangs: the stack, by Python's faulthandler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

FATAL = "Fatal Python error: "
# How one is ended that hangs, so that it writes its stack.
HUNG = "Aborted"


def place(lines: Sequence[str], folder: Path) -> str:
    """``model.py, line 7: `` of the last stack, innermost first; empty where no file of the model is in it."""
    since = max((number for number, line in enumerate(lines) if line.startswith(FATAL)), default=len(lines))
    for line in lines[since:]:
        head, _, rest = line.strip().partition('File "')
        path, _, where = rest.partition('", line ')
        if not head and where and path.startswith(f"{folder}/"):
            return f"{Path(path).relative_to(folder)}, line {where.split()[0]}: "
    return ""


def crash(lines: Sequence[str]) -> str:
    """Such as `` (Segmentation fault)``; empty where it did not crash."""
    last = next((line for line in reversed(lines) if line.startswith(FATAL)), "").removeprefix(FATAL)
    return f" ({last})" if last and last != HUNG else ""
