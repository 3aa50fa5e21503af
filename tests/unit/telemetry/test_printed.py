"""What a whole application of another team prints, as apache/application.py lets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from app.config import ROOT

CODE = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("cask_application", {str(ROOT / "apache" / "application.py")!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.replace_streams("shop", "info")
print("rows:", 3, end="\\n\\n")
print("an old name\\x1b[0m", file=sys.stderr)
sys.stdout.buffer.write(b"bytes \\xff\\n")
sys.stdout.reconfigure(line_buffering=True)
print("Umlaut ä", sys.stdout.encoding)
"""
TOLD = [
    ("info", "rows: 3"),
    ("warning", "an old name\x1b[0m"),
    ("info", "bytes \\xff"),
    ("info", "Umlaut ä utf-8"),
]


@pytest.mark.parametrize("mark", ["", "0123456789abcdef"])
def test_what_an_application_prints_is_a_line_of_its_own_level(mark: str) -> None:
    """Apache would write each as an error. As text, or with the mark as JSON; without the packages of Cask."""
    environ = {**os.environ, "CASK_LOG_MARK": mark}
    done = subprocess.run([sys.executable, "-S", "-c", CODE], env=environ, capture_output=True, text=True, check=True)

    lines = done.stderr.splitlines()
    if mark:
        found = [json.loads(line.removeprefix(mark)) for line in lines]
        assert [(each["level"], each["message"]) for each in found] == TOLD
        assert {each["role"] for each in found} == {"plugin-shop"}
    else:
        assert [(line.split()[1].lower(), line.split("shop   ")[1]) for line in lines] == [
            (level, message.replace("\x1b", "\\u001b")) for level, message in TOLD
        ]
