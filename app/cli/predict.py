"""``flask predict``: images through the running service, as its callers send them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from app import config, tasks
from app.cli import code_answers, completion, service, terminal
from app.cli.service import Reply, Service
from app.inference.results import MAX_RESULTS

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
COORDINATES = ("x_min", "y_min", "x_max", "y_max")
COLUMNS = ("image", "label", "score", *COORDINATES, "error")
AT_ONCE = 4
# Of a row without a label, in a table.
SHOWN_TEXT = 60
STANDARD_INPUT = Path("-")
# Asked by their signatures; as ``manifests.BY_SIGNATURE``, which would be imported for this alone.
BY_SIGNATURE = ("code", "tensor")


@dataclass(frozen=True)
class Predicted:
    """What one image got: what was found, or why nothing could be."""

    path: Path
    found: Sequence[dict[str, Any]] = ()
    # Rows without labels and scores, such as measures, in place of ``found``.
    rows: Sequence[Any] = ()
    size: tuple[int, int] = (0, 0)
    model: str = ""
    error: str = ""


@click.command(cls=terminal.Command)
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option("--model", default="", shell_complete=completion.models, help="Its name; else the first one that serves.")
@click.option("--version", default="", shell_complete=completion.versions, help="Its version; else the active one.")
@click.option("--top", type=click.IntRange(1, MAX_RESULTS), help="At most so many answers an image, best first.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Leave out what has a lower score.")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON object an image, each on its line.")
@click.option("--csv", "is_csv", is_flag=True, help="Print comma-separated values, a line for each thing found.")
@click.option("--at-once", type=click.IntRange(1, 64), default=AT_ONCE, show_default=True, help="Images on their way.")
@click.option(
    "--url", default="", help="Another service than the one of ENV on this machine, such as http://host:8000."
)
@click.option("--token", default="", envvar="CASK_TOKEN", help="API token of a service elsewhere; else CASK_TOKEN.")
@click.pass_context
def command(
    context: click.Context,
    images: Sequence[Path],
    model: str,
    version: str,
    top: int | None,
    threshold: float | None,
    is_json: bool,
    is_csv: bool,
    at_once: int,
    url: str,
    token: str,
) -> None:
    """Send images to the running service and print what it says.

    A folder stands for all images below it, - for one that comes by standard input.
    Ends with 1 when one of them could not be answered.
    """
    paths = _files(images)
    service = context.with_resource(_service(url, token))
    row = _choose(service, model, version)
    if row["task"] in BY_SIGNATURE:
        context.exit(terminal.REFUSED if code_answers.send(service, row, paths, top) else 0)
    ask = _question(service, row, version, top, threshold)
    # Lines that are printed as they come would run into the bar.
    is_bar_shown = not (is_json or is_csv) or not sys.stdout.isatty()
    with terminal.progress("Predicting", len(paths), is_shown=is_bar_shown) as advance:
        predicted = _in_order(ask, paths, at_once, advance)
        if is_json:
            is_whole = _print_lines(predicted)
        elif is_csv:
            is_whole = _print_csv(predicted)
        else:
            every = list(predicted)
    if not (is_json or is_csv):
        is_whole = _print_table(every)
    if not is_whole:
        context.exit(terminal.REFUSED)


def _in_order(
    ask: Callable[[Path], Predicted], paths: Sequence[Path], at_once: int, advance: Callable[[], None]
) -> Iterator[Predicted]:
    """Some images at a time; their answers in the order of the images, as they come."""
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for predicted in pool.map(ask, paths):
                advance()
                yield predicted
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _files(given: Sequence[Path]) -> list[Path]:
    """The files, and those below folders that look like images. Raises Failure where a folder holds none."""
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        below = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
        if not below:
            raise terminal.Failure(
                f"{path} holds no image.", next_step=f"Names of images end in {', '.join(SUFFIXES)}."
            )
        found += below
    return found


@contextlib.contextmanager
def _service(url: str, token: str) -> Iterator[Service]:
    if url:
        yield service.Service(url.rstrip("/"), token=token)
        return
    settings = config.resolve()
    with contextlib.nullcontext(token) if token else service.own_token(settings) as shown:
        yield service.local(settings, shown)


def _choose(service: Service, name: str, version: str) -> dict[str, Any]:
    """The row of the model in /v1/models. Raises Failure where there is none."""
    reply = service.ask("/v1/models")
    if reply.status != 200:
        raise terminal.Failure(reply.problem, next_step="flask doctor tells what is wrong with a service that runs.")
    rows: list[dict[str, Any]] = reply.document["models"]
    for row in rows:
        # A model with code takes what its own hints say: it is asked by its name.
        is_meant = row["name"] == name or (not name and row["task"] not in BY_SIGNATURE)
        if is_meant and (row["version"] == version if version else row["role"] == "active"):
            return row
    served = ", ".join(f"{row['name']}@{row['version']}" for row in rows) or "none"
    requested = f"{name or 'a model'}{'@' + version if version else ''}"
    raise terminal.Failure(f"The service does not serve {requested}.", next_step=f"It serves: {served}.")


def _question(
    service: Service, model: dict[str, Any], version: str, top: int | None, threshold: float | None
) -> Callable[[Path], Predicted]:
    """What is asked of each image."""
    task = tasks.BY_NAME[model["task"]]
    params: dict[str, Any] = {"model": model["name"], "version": version or None}
    if top and not task.count_option:
        raise terminal.Failure(
            f"{_key(model)} answers {task.name}, of which nobody can ask for {top}.", next_step="Leave --top out."
        )
    params |= {task.count_option: top}
    # Answers of a task without this option are cut here.
    params |= {"score_threshold": threshold if "score_threshold" in task.params.model_fields else None}
    path = f"/v1/{model['task']}?{urlencode({name: value for name, value in params.items() if value is not None})}"

    def ask(file: Path) -> Predicted:
        try:
            body = sys.stdin.buffer.read() if file == STANDARD_INPUT else file.read_bytes()
        except OSError as error:
            return Predicted(file, error=f"It cannot be read: {error.strerror}.")
        return _predicted(file, service.ask(path, body), threshold or 0.0)

    return ask


def _predicted(file: Path, reply: Reply, threshold: float) -> Predicted:
    if reply.status != 200:
        return Predicted(file, error=reply.problem)
    said, result = reply.document["model"], reply.document["results"][0]
    task = tasks.of_row(result)
    scored = task.scored(result)
    found = [each for each in scored if each["score"] >= threshold]
    rows = () if scored else result[task.rows]
    return Predicted(file, found, rows, (result["width"], result["height"]), _key(said))


def _key(row: dict[str, Any]) -> str:
    """``name@version`` of a row of /v1/models."""
    return f"{row['name']}@{row['version']}"


# ── what is printed; each says whether every image was answered ──────────────────────────────────────────────────────


def _print_table(every: Sequence[Predicted]) -> bool:
    is_boxed = any("box" in each for one in every for each in one.found)
    rows: list[tuple[Any, ...]] = []
    for one in every:
        rows += [
            (str(one.path), each["label"], round(each["score"], 3), *([_box(each)] if is_boxed else []))
            for each in one.found
        ]
        rows += [(str(one.path), text[:SHOWN_TEXT], None) for text in _texts(one.rows)]
        if not one.found and not one.rows:
            rows.append((str(one.path), "(nothing)" if not one.error else None, None, *([None] if is_boxed else [])))
    heads = ("Image", "Label", "Score", *(["Box, in pixels"] if is_boxed else []))
    models = ", ".join(dict.fromkeys(one.model for one in every if one.model))
    terminal.print_table(heads, rows, title=f"{models or 'No answer'}: {len(every)} images")
    for one in every:
        if one.error:
            terminal.print_note(f"FAIL: {one.path}: {one.error}")
    return not any(one.error for one in every)


def _texts(rows: Sequence[Any]) -> list[str]:
    """Rows without labels, a text each; of mere numbers one for all."""
    each = rows if all(isinstance(row, dict) for row in rows) else [rows]
    return [json.dumps(row, ensure_ascii=False) for row in each]


def _box(found: dict[str, Any]) -> str:
    return " ".join(f"{found['box'][side]:.0f}" for side in COORDINATES)


def _print_lines(predicted: Iterator[Predicted]) -> bool:
    is_whole = True
    for one in predicted:
        about: dict[str, Any] = {"image": str(one.path)}
        if one.error:
            is_whole = False
            about["error"] = one.error
        else:
            about |= {"model": one.model, "width": one.size[0], "height": one.size[1], "results": one.found or one.rows}
        click.echo(json.dumps(about, ensure_ascii=False))
    return is_whole


def _print_csv(predicted: Iterator[Predicted]) -> bool:
    is_whole = True
    click.echo(_csv_line(COLUMNS))
    for one in predicted:
        for each in one.found:
            box = each.get("box", {})
            click.echo(_csv_line((one.path, each["label"], each["score"], *(box.get(s, "") for s in COORDINATES), "")))
        for text in _texts(one.rows):
            click.echo(_csv_line((one.path, text, *[""] * 6)))
        if not one.found and not one.rows:
            click.echo(_csv_line((one.path, *[""] * 6, one.error)))
        is_whole = is_whole and not one.error
    return is_whole


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
