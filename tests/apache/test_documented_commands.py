"""Commands and programs in the documents are run as they stand there, against the real service.

A block whose first line says ``run`` (```` ```sh run ````) is run in the checkout, with address and ENV of the test's
server in place of the documented ones. The block after it, if it is an answer, must agree: same status, same code, and
no header or key that the real answer lacks. Values may differ: times, ids and scores do.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import bad_input, servers

DOCUMENTS = ("README.md", "docs/api.md", "docs/operations.md", "docs/administration.md")
PROGRAMS = ("examples/clients/every_url.py", "examples/clients/every_url.mjs")
DOCUMENTED_ADDRESS = "http://localhost:8000"
TIMEOUT_SECONDS = 60

FENCE = re.compile(r"^```(?P<language>\w*)(?P<run> run)?\n(?P<text>.*?)^```$", re.M | re.S)
STATUS = re.compile(r"^HTTP/1\.1 (\d{3}) ", re.M)
HEADER = re.compile(r"^([A-Z][A-Za-z-]+): ", re.M)
KEY = re.compile(r'"(\w+)":')
CODE = re.compile(r'"code":\s*"(\w+)"')
PROBLEM = "urn:cask:problem:"


@dataclass(frozen=True)
class Block:
    """Something to run, and the answer the document gives for it (empty where it gives none)."""

    place: str
    language: str
    text: str
    answer: str


def blocks_of(document: str) -> list[Block]:
    """The runnable blocks of one document."""
    text = (servers.ROOT / document).read_text()
    fences = list(FENCE.finditer(text))
    found = []
    for fence, following in zip(fences, [*fences[1:], None], strict=True):
        if not fence["run"]:
            continue
        is_answer = following is not None and not following["run"] and following["language"] in ("", "json")
        line = text.count("\n", 0, fence.start()) + 1
        answer = following["text"] if following is not None and is_answer else ""
        found.append(Block(f"{document}:{line}", fence["language"], fence["text"], answer))
    return found


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


def run(block: Block, url: str) -> str:
    """What the block prints."""
    text = block.text.replace(DOCUMENTED_ADDRESS, url).replace("ENV=dev", "ENV=test")
    command = {
        "sh": ["bash", "-eu", "-o", "pipefail", "-c", text],
        "python": [sys.executable, "-c", text],
        "js": ["node", "--input-type=module", "--eval", text],
    }
    done = subprocess.run(
        command[block.language],
        cwd=servers.ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{block.place}: {done.stderr}{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def served_url() -> Iterator[str]:
    """A service that keeps answers, as the documents' does."""
    with servers.running("test", CACHE="disk") as server:
        yield server.url


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_documented_command_gives_what_the_document_says(served_url: str, block: Block) -> None:
    check(block, run(block, served_url))


def check(block: Block, output: str) -> None:
    """That the block's answer in the document agrees with what it printed."""
    assert output.strip()
    assert STATUS.findall(block.answer) in ([], STATUS.findall(output)[-1:])
    assert CODE.findall(block.answer) == CODE.findall(output)
    assert (PROBLEM in block.answer) == (PROBLEM in output), output
    assert set(HEADER.findall(block.answer)) <= set(HEADER.findall(output))
    assert set(KEY.findall(block.answer)) <= set(KEY.findall(output))


def test_blocks_are_found_and_none_is_marked_in_vain() -> None:
    gettext_noop = sum(len(re.findall(r"^```\w+ run$", (servers.ROOT / each).read_text(), re.M)) for each in DOCUMENTS)

    assert len(BLOCKS) == gettext_noop >= 10
    assert {"sh", "python", "js"} == {block.language for block in BLOCKS}
    assert all(Path(servers.ROOT / name).exists() for name in DOCUMENTS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_calls_every_address_that_programs_use(served_url: str, served: servers.Server, program: str) -> None:
    command = [sys.executable if program.endswith(".py") else "node", program]
    done = subprocess.run(
        command,
        cwd=servers.ROOT,
        env={**os.environ, "CASK_URL": served_url},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    # Pages are for people, and a version in an address is the same address once more.
    addresses = [
        path
        for path, operations in served.ask("/openapi.json").json["paths"].items()
        if "/versions/" not in path and not _is_for_people(operations)
        if "post" in operations or _answers_json(operations["get"])
    ]

    text = (servers.ROOT / program).read_text()
    missing = [path for path in addresses if not re.search(_address_pattern(path), text)]

    assert done.returncode == 0, done.stderr
    assert len(addresses) > 15
    assert missing == []


def _is_for_people(operations: dict[str, Any]) -> bool:
    return all(each["tags"] == ["The page"] for each in operations.values())


def _answers_json(operation: dict[str, Any]) -> bool:
    return (
        "application/json" in operation["responses"]["200"].get("content", {})
        if "200" in operation["responses"]
        else False
    )


def _address_pattern(path: str) -> str:
    return r'["`]' + re.sub(r"\\{\w+\\}", r"\\$?{\\w+}", re.escape(path)) + '["`?]'


def photo(width: int = 2000, height: int = 1500) -> bytes:
    """A JPEG of some megabytes, as a camera gives: its bytes look like chance, so they may hold anything."""
    pixels = np.random.default_rng(20261120).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_a_photo_of_megabytes_is_taken_by_each_of_the_three_ways(served: servers.Server) -> None:
    image = photo()
    ways = {
        "multipart": bad_input.multipart(image),
        "bytes": (image, "image/jpeg"),
        "json": (bad_input.json_body(image), "application/json"),
    }

    answers = {way: served.ask("/v1/classify", body, {"Content-Type": kind}) for way, (body, kind) in ways.items()}

    assert 2_000_000 < len(image) < 16_777_216
    assert {way: answer.status for way, answer in answers.items()} == dict.fromkeys(ways, 200)
