"""The process in which somebody's network is read and converted: ``python -m …network_process FOLDER MEMORY_MB``.

One line of JSON on stdin says what is wanted, one on stdout what was made. It sees no setting and no secret, and may
take so much memory and time as its caller allows.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from app.config import ROOT
from app.errors import CaskError, GoldenCheckError, ModelLoadError
from app.models.manifests import TENSOR
from app.runtimes.importing.network_wanted import Converted, Wanted

MEGABYTE = 1 << 20
SHOWN_CHARACTERS = 300


def convert(wanted: Wanted, folder: Path, *, limit_seconds: float, memory_mb: int) -> Converted:
    """Convert in a process of its own. Raises ModelLoadError, GoldenCheckError; also for too much of time or memory."""
    with subprocess.Popen(
        [sys.executable, "-m", "app.runtimes.importing.network_process", str(folder), str(memory_mb)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(folder), "OMP_NUM_THREADS": "2"},
        process_group=0,
    ) as process:
        try:
            said, log = process.communicate(wanted.to_json().encode(), timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            hint = "Allow more with --timeout-seconds."
            raise ModelLoadError(f"{wanted.file} was not converted within {limit_seconds:g} s.", hint=hint) from None
        finally:
            # Whatever it started ends with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return _answer(wanted, said, log, process.returncode, memory_mb)


def _answer(wanted: Wanted, said: bytes, log: bytes, status: int, memory_mb: int) -> Converted:
    try:
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        words = (log.decode(errors="replace").strip().splitlines() or [f"status {status}"])[-1][:SHOWN_CHARACTERS]
        how = f"by {signal.Signals(-status).name}" if status < 0 else words
        raise ModelLoadError(
            f"{wanted.file} ended the process that converted it: {how}.",
            hint=f"It may need more memory than {memory_mb} MB (--memory-mb), or be damaged.",
        ) from None
    if "error" in found:
        kind = GoldenCheckError if found["kind"] == "GoldenCheckError" else ModelLoadError
        raise kind(found["error"], hint=found["hint"])
    return Converted.from_json(found)


def main() -> int:
    """Convert what stdin says."""
    memory = int(sys.argv[2]) * MEGABYTE
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    # What libraries print must not stand before our line.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    wanted = Wanted.from_json(sys.stdin.readline())
    print(_said(wanted, Path(sys.argv[1])), file=answers, flush=True)
    return 0


def _said(wanted: Wanted, folder: Path) -> str:
    from app.runtimes.importing import network_conversion, network_tensors

    convert_to = network_tensors.convert if wanted.task == TENSOR else network_conversion.convert
    try:
        return convert_to(wanted, folder).to_json()
    except CaskError as error:
        return json.dumps({"error": error.message, "hint": error.hint, "kind": type(error).__name__})
    except MemoryError:
        hint = "Allow more with --memory-mb."
        return json.dumps({"error": f"{wanted.file} needs more memory than allowed.", "hint": hint, "kind": ""})
    except Exception as error:  # noqa: BLE001 - whatever a library raises for somebody's file
        words = f"{type(error).__name__}: {error}".splitlines()[0][:SHOWN_CHARACTERS]
        hint = "Export the network to ONNX, or serve it as a model with code."
        return json.dumps({"error": f"{wanted.file} cannot be converted: {words}", "hint": hint, "kind": ""})


if __name__ == "__main__":
    sys.exit(main())
