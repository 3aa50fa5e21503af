"""The process of one model with code: loads model.py, answers batches over a socket until the engine closes it.

``python -m app.model_code.child SOCKETS FOLDER MEMORY_MB PARENT PACKAGES [ahead]``: descriptors with commas between,
each answered by a thread of its own, a folder, a limit (0 for none; ``?`` behind it: the class may declare another),
the process that must be alive, and where packages of its own lie (empty: nowhere). With ``ahead`` it imports what it is
told, then waits until it shall load. May run under another Python than the engine: knows the standard library,
``cask``, the frames and ``app.host.machine``. What the model prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import resource
import select
import signal
import site
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cask
from app.engine import frame_sockets
from app.engine.protocol import Frame, FrameType
from app.host import machine
from app.model_code import class_limits, imports, model_class, sources
from app.model_code import signature as signatures
from app.model_code.kinds import Pixels
from app.model_code.model_class import SignatureError
from app.model_code.schema_marks import BESIDE, KIND
from app.model_code.signature import Signature

MEGABYTE = 1024 * 1024
WHY_CHARACTERS = 500
# Web processes and engine hold an answer whole, several times.
MOST_ANSWER_BYTES, MOST_BATCH_BYTES = 16 * MEGABYTE, 128 * MEGABYTE
PR_SET_PDEATHSIG = 1
# After so long without a call, the next one may wait for memory.
REST_SECONDS = 2.0

# How one item ended, and the bytes of its answer.
Outcome = tuple[dict[str, Any], bytes]


class Served:
    """One loaded model and what it promises."""

    def __init__(self, model: cask.Model, found: Signature, limits: dict[str, float]) -> None:
        self.limits = limits
        self._predict: Callable[..., Any] = model.predict  # type: ignore[attr-defined]
        self.signature = found
        # How long the last call of predict took by itself, and when it ended.
        self.predict_seconds = self.used_at = 0.0

    def answer(self, batch: Frame, retrying: Callable[[], None]) -> list[Outcome]:
        """One outcome for each item. ``retrying`` is called before an item is tried alone."""
        given = batch.meta["options"]
        try:
            options = {
                name: kind.read(given[name]) for name, (kind, _) in self.signature.options.items() if name in given
            }
        except Exception as error:  # noqa: BLE001 - whatever the code of a dataclass raises
            return [({"refused": f"{error}"[:WHY_CHARACTERS]}, b"") for _ in batch.meta["items"]]
        read = [self._read(item, base, batch.payload) for item, base in batch.meta["items"]]
        usable = [item for item in read if isinstance(item, list)]
        answered = iter(self._call(usable, options, retrying) if usable else [])
        return [next(answered) if isinstance(item, list) else item for item in read]

    def _read(self, item: Sequence[Any], base: int, payload: Any) -> list[Any] | Outcome:
        """The values of one item; a dataclass may refuse what its types allow."""
        view = memoryview(payload)
        try:
            return [
                kind.read(_beside(value, base, view) if kind.schema.get(KIND) in BESIDE else value)
                for value, kind in zip(item, self.signature.inputs.values(), strict=True)
            ]
        except Exception as error:  # noqa: BLE001 - whatever the code of a dataclass raises
            return {"refused": f"{error}"[:WHY_CHARACTERS]}, b""

    def _call(self, items: list[list[Any]], options: dict[str, Any], retrying: Callable[[], None]) -> list[Outcome]:
        try:
            return self._call_once(items, options)
        except BaseException as error:  # noqa: BLE001 - whatever the model raises, KeyboardInterrupt too
            # It may have closed its own output.
            with contextlib.suppress(OSError, ValueError):
                traceback.print_exc()
            said = _said(error)
            if len(items) == 1:
                return [({"failed": type(error).__name__, "why": said}, b"")]
        outcomes: list[Outcome] = []
        for item in items:
            retrying()
            outcomes += self._call([item], options, retrying)
        return [({**outcome, "alone": said}, data) for outcome, data in outcomes]

    def _call_once(self, items: list[list[Any]], options: dict[str, Any]) -> list[Outcome]:
        columns = [list(column) for column in zip(*items, strict=True)]
        started, pid = time.perf_counter(), os.getpid()
        try:
            answers = self._predict(*columns, **options)
        finally:
            _end_copy(pid)
        self.predict_seconds, self.used_at = time.perf_counter() - started, time.monotonic()
        # An array or a tensor is as good as a list; a text or a table is a mistake.
        if isinstance(answers, str | bytes | dict | set) or not hasattr(answers, "__len__"):
            raise TypeError(f"predict returned {type(answers).__name__}, expected a list with {len(items)} answers")
        if len(answers) != len(items):
            raise ValueError(
                f"predict returned {len(answers)} answers for {len(items)} items; "
                'the list must be as long: an answer or Refused("why") for each item'
            )
        return [self._written(answer) for answer in answers]

    def _written(self, answer: Any) -> Outcome:
        if isinstance(answer, cask.Refused):
            return {"refused": str(answer.why)[:WHY_CHARACTERS]}, b""
        try:
            text = json.dumps(self.signature.answer.write(answer), allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            said = f"the answer does not fit the type that predict promises: {error}"
            print(said, file=sys.stderr)
            return {"failed": type(error).__name__, "why": said[:WHY_CHARACTERS]}, b""
        return {}, text.encode()


def _said(error: BaseException) -> str:
    """What was raised, and the last line of the model that had a part in it; for the model's owner, not for callers."""
    place = model_class.place_of(error, Path.cwd())
    return f"{place}{': ' * bool(place)}{type(error).__name__}: {error}"[:WHY_CHARACTERS]


def _print(error: BaseException | None, folder: Path) -> None:
    """The stack from the model's own file on; nothing for None."""
    if error is None:
        return
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(f"{folder}/"):
        trace = trace.tb_next
    traceback.print_exception(error.with_traceback(trace))


def _beside(value: Any, base: int, payload: memoryview) -> Any:
    start, length, *picture = value
    data = payload[base + start : base + start + length]
    return Pixels(data, *picture) if picture else data


def _end_copy(pid: int) -> None:
    """What os.fork() in a model.py makes must not answer besides: it has the same socket."""
    if os.getpid() != pid:
        os.write(2, b"A copy of this process, made by os.fork(), came back from model.py and was ended.\n")
        os._exit(0)


def _load(folder: Path, memory: str) -> Served:
    pid = os.getpid()
    # What we need of ours is imported.
    sources.yield_name(folder)
    try:
        found = model_class.find(folder)
        promised, limits = signatures.read(found, folder), class_limits.read(found, folder / model_class.FILE_NAME)
        if memory.endswith("?"):
            _limit_memory(int(limits.get("memory_mb", memory[:-1])))
        model = found()
        model.load(folder)
        return Served(model, promised, limits)
    finally:
        _end_copy(pid)


def _bounded(outcomes: list[Outcome]) -> list[Outcome]:
    """Without answers that the service would choke on: what is too large by itself, and the largest of a batch."""
    kept, left = list(outcomes), MOST_BATCH_BYTES
    for number in sorted(range(len(kept)), key=lambda each: len(kept[each][1])):
        count = len(kept[number][1])
        left -= count
        if count > MOST_ANSWER_BYTES or left < 0:
            print(
                f"an answer has {count} bytes of JSON; at most {MOST_ANSWER_BYTES} can be sent, and {MOST_BATCH_BYTES}"
                " of a batch: answer less, or make the batch smaller",
                file=sys.stderr,
            )
            kept[number] = ({"failed": "AnswerTooLarge"}, b"")
    return kept


def _serve(sock: socket.socket, served: Served) -> None:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        while not poll.poll(REST_SECONDS * 1000):
            # Another thread may be at work, who would ask for it again at once.
            if time.monotonic() - served.used_at >= REST_SECONDS:
                # What was freed and is kept for the next call, and code that only loading ran.
                machine.trim_memory()
                break
        batch = frame_sockets.receive(sock)
        outcomes = served.answer(batch, lambda: frame_sockets.send(sock, Frame(FrameType.PROGRESS, {})))
        outcomes = _bounded(outcomes)
        rows = [{**outcome, "bytes": len(data)} for outcome, data in outcomes]
        meta = {"rows": rows, "seconds": served.predict_seconds}
        frame_sockets.send(sock, Frame(FrameType.ANSWER, meta, b"".join(data for _, data in outcomes)))


def _limit(memory: str, parent: int) -> None:
    """End with the engine, leave no core, and fail to allocate beyond the limit instead of pressing others out."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory(int(memory.rstrip("?")), may_change=memory.endswith("?"))


def _limit_memory(memory_mb: int, *, may_change: bool = False) -> None:
    most = memory_mb * MEGABYTE or resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY if may_change else most))


def _hide_cask() -> None:
    """Whatever the model imports is its own or a library's; also in the processes that it starts."""
    root = str(Path(__file__).resolve().parents[2])
    sys.path[:] = [path for path in sys.path if path != root]
    os.environ.pop("PYTHONPATH", None)
    # What multiprocessing runs first in them.
    main = sys.modules["__main__"]
    main.__spec__, main.__file__ = None, str(Path(__file__).with_name("spawned.py"))


def _put_first(packages: str) -> None:
    """The packages of its own environment come before those of the bundle, also for a Python that the model starts."""
    os.environ["PYTHONPATH"] = packages
    before = list(sys.path)
    site.addsitedir(packages)
    sys.path[:] = [path for path in sys.path if path not in before] + before


def main(arguments: Sequence[str]) -> int:
    """Serve until the socket is closed. Returns 1 when the model cannot be loaded; the reason was sent before."""
    descriptors = [int(each) for each in arguments[0].split(",")]
    folder, memory, parent = Path(arguments[1]), arguments[2], int(arguments[3])
    # What the model prints is for its owner, and must not mix with frames.
    os.dup2(2, 1)
    _limit(memory, parent)
    # A crash in C, or an end because of a hang (SIGABRT), says in which file and line.
    faulthandler.enable()
    # A process that the model starts must not keep the socket open.
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    _hide_cask()
    if arguments[4]:
        _put_first(arguments[4])
    is_ahead = "ahead" in arguments[5:]
    with socket.socket(fileno=descriptors[0]) as sock:
        if is_ahead:
            imports.ahead(frame_sockets.receive(sock).meta["imports"])
            frame_sockets.receive(sock)
        started = time.monotonic()
        # Code that reads arguments finds none; ours would end it.
        sys.argv = [str(folder / "model.py")]
        try:
            served = _load(folder, memory)
        except BaseException as error:  # noqa: BLE001 - whatever the model raises
            # What is wrong with the signature is said in one sentence; the stack is that of what model.py raised.
            _print(error.__cause__ if isinstance(error, SignatureError) else error, folder)
            text = str(error) if isinstance(error, SignatureError) else _said(error)
            frame_sockets.send(sock, Frame(FrameType.ERROR, {"message": text[:WHY_CHARACTERS]}))
            return 1
        meta = {"signature": served.signature.to_dict(), "seconds": round(time.monotonic() - started, 3)}
        meta |= {"limits": served.limits}
        meta |= {"imported": imports.of_packages()} if is_ahead else {}
        frame_sockets.send(sock, Frame(FrameType.STATUS_ANSWER, meta))
        for descriptor in descriptors[1:]:
            threading.Thread(target=_serve, args=(socket.socket(fileno=descriptor), served), daemon=True).start()
        with contextlib.suppress(EOFError, OSError):
            _serve(sock, served)
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that the model left behind do not keep the process.
    os._exit(code)
