"""``flask model``: what lies in the store, what the engine holds, and every change of it. Behind ``make model-…``."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from app import config
from app.cli import code_models, completion, known_settings, terminal
from app.config import Settings
from app.engine.client import EngineClient
from app.errors import CaskError, EngineAwayError, ManifestError
from app.host import permissions
from app.models import manifests, versions
from app.models.manifests import CodeSpec, Manifest, ServeSpec, ToleranceSpec
from app.models.routing import Routing
from app.runtimes import devices
from app.runtimes.importing import timm_networks

model_argument = click.argument("model", shell_complete=completion.models)
any_model_argument = click.argument("model", required=False, default="", shell_complete=completion.models)
version_argument = click.argument("version", shell_complete=completion.versions)
any_version_argument = click.argument("version", required=False, default="", shell_complete=completion.versions)


@click.group(cls=terminal.Group)
def command() -> None:
    """Models: see, add, build, and change which one answers."""


for each in (code_models.new, code_models.test, code_models.dev):
    command.add_command(each)


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@command.command("list")
@terminal.json_option
def list_models(is_json: bool) -> None:
    """Print what lies in the store.

    And what of it serves, if the service runs."""
    settings = known_settings.read("models_dir", *known_settings.ENGINE)
    store = manifests.versions(settings.models_dir)
    manifests.choose(settings.models_dir)
    held = {(row["model"], row["version"]): row for row in _held(settings)}
    rows = [
        _store_row(settings.models_dir / name / version, held.get((name, version), {}))
        for name, versions in store.items()
        for version in versions
    ]
    if is_json:
        terminal.print_json(rows)
        return
    heads = ("Model", "Task", "Architecture", "Role", "State", "Digest", "What it is")
    keys = ("key", "task", "architecture", "role", "state")
    cells = [(*(row[key] for key in keys), _short(row["digest"]), row["description"]) for row in rows]
    terminal.print_table(heads, cells)


def _store_row(folder: Path, held: dict[str, Any]) -> dict[str, Any]:
    try:
        manifest = manifests.read(folder)
    except ManifestError as error:
        key = f"{folder.parent.name}@{folder.name}"
        unknown = dict.fromkeys(("task", "architecture", "role", "digest", "labels"))
        row = {"key": key, "model": folder.parent.name, "version": folder.name, **unknown}
        return {**row, "state": "unreadable", "description": error.message}
    return {
        "key": manifest.key,
        "model": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "architecture": manifest.architecture,
        "role": held.get("role"),
        "state": held.get("state"),
        "digest": manifest.digest,
        "labels": len(manifest.labels),
        "description": manifest.description,
    }


def _held(settings: Settings) -> list[dict[str, Any]]:
    """What the engine holds; nothing where none runs."""
    with contextlib.suppress(EngineAwayError):
        return versions.held(EngineClient(settings.engine_socket))
    return []


@command.command("versions")
@any_model_argument
@terminal.json_option
def held_versions(model: str, is_json: bool) -> None:
    """Print what the running engine holds, and what for."""
    with _engine() as (client, _):
        rows = versions.held(client, model)
        ways_back = versions.ways_back(client, model)
    if is_json:
        terminal.print_json(rows)
        return
    if not rows:
        raise terminal.Failure(f"The engine holds no model {model!r}.", next_step="flask model versions prints all.")
    heads = ("Model", "Role", "State", "Share %", "Digest", "Computed by")
    terminal.print_table(
        heads,
        [
            (
                *(f"{row['model']}@{row['version']}", row["role"], row["state"], row["share"], _short(row["digest"])),
                row["computed_by"] or row["error"],
            )
            for row in rows
        ],
    )
    _print_lines(ways_back)


@command.command()
@any_model_argument
@terminal.json_option
def report(model: str, is_json: bool) -> None:
    """Print what was built, how fast and how faithful."""
    from app.runtimes.build import build

    settings = config.resolve()
    chosen = manifests.find(settings.models_dir, (model,) if model else settings.models)
    found = [build.last_report(settings.state_dir, each, devices.resolve(settings.device)) for each in chosen]
    if is_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2, default=str))
    else:
        click.echo("\n\n".join(build.table(each) for each in found) + "\n")


@command.command()
@click.option("--quick", is_flag=True, help="Fewer scenes: a first impression in half a minute.")
@click.option("--runtime", default="torch", help="What computes: torch, or one that model build made.")
@click.option("--precision", default="fp32", help="fp32, bf16 or int8.")
@click.option("--store", type=click.Path(path_type=Path), help="The model store; else that of MODELS_DIR.")
@terminal.json_option
@click.pass_context
def check(context: click.Context, quick: bool, runtime: str, precision: str, store: Path | None, is_json: bool) -> None:
    """Measure the demonstration on held-out scenes.

    Prints figures for scenes that the models never saw, and ends with 1 where one is below its target."""
    try:
        from training import check as held_out
    except ModuleNotFoundError as error:
        raise terminal.Failure(
            f"This needs {error.name}, which the image does not bring.", next_step="Run it in a checkout."
        ) from None
    place = store or config.resolve().models_dir
    if not held_out.check(place, runtime, precision, is_quick=quick, as_json=is_json):
        context.exit(terminal.REFUSED)


# ── adding and building ──────────────────────────────────────────────────────────────────────────────────────────────


def _numbers(context: click.Context, parameter: click.Parameter, value: tuple[float, ...]) -> tuple[float, ...] | None:
    return value or None


def _object(context: click.Context, parameter: click.Parameter, value: str) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise click.BadParameter("expected a JSON object")
    return found


class Side(click.ParamType):
    """Pixels of one side. Two of them are asked for where inputs are not square, which is refused by name."""

    name = "pixels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; fails with a sentence of its own for ``640x480``."""
        if re.fullmatch(r"\W*\d+\W*[x×, ]\W*\d+\W*", str(value)):
            self.fail(f"{value!r} are two sides. {manifests.NOT_SQUARE}", param, ctx)
        return int(click.INT.convert(value, param, ctx))


@command.command()
@click.option("--arch", help="A builder such as resnet50 or fasterrcnn_resnet50_fpn; timm:NAME of timm.")
@click.option("--weights", help="A .pth or .safetensors file, DEFAULT, or random.")
@click.option("--code", type=click.Path(path_type=Path), help="A folder with model.py, instead of an architecture.")
@click.option("--file", "network", type=click.Path(path_type=Path), help="ONNX, OpenVINO .xml, .pt2 or TorchScript.")
@click.option("--task", help="With --file: what it is asked. With timm, where it is not to classify.")
@click.option("--values", type=click.Choice(["0-1", "0-255"]), help="With --file: of colours, before mean and std.")
@click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="With --file: where its shape does not say.")
@click.option("--channels", type=click.Choice(["rgb", "bgr"]), default="rgb", help="With --file: order of colours.")
@click.option("--not-normalised", is_flag=True, help="With --file: vectors as they are, not of length 1.")
@click.option("--labels-from", type=click.IntRange(0, 1), help="With --file: number of the first label.")
@click.option("--output", default="", help="With --file: the output that is read, by name.")
@click.option(
    "--timeout-seconds",
    type=click.FloatRange(1, 3600),
    help="With --code: longest call (the class's, or 30). With --file: longest conversion (600).",
)
@click.option(
    "--memory-mb",
    type=click.IntRange(0),
    help="With --code (the class's, or 4096) or for converting --file (8192): most it may allocate; 0: no limit.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.001,
    help="With --code: numbers may so much differ from stored ones.",
)
@click.option("--trust", is_flag=True, help="With --code: also where it holds pickles, which run code when loaded.")
@click.option("--labels", type=click.Path(path_type=Path), help="Text, one label a line; where the weights have none.")
@click.option("--name", required=True, help="Lower-case letters, digits, '.', '_' and '-'.")
@click.option("--version", required=True, help="As the name: 1, 2, 2026-11 …")
@click.option("--store", type=click.Path(path_type=Path), help="The model store; else that of MODELS_DIR.")
@click.option("--description", default="", help="One sentence for people.")
@click.option("--half", is_flag=True, help="Store fp16, half the size; it is served as fp32.")
@click.option("--force", is_flag=True, help="Replace this version if it exists.")
@click.option(
    "--input-kind", type=click.Choice(["crop", "letterbox", "fit"]), default=None, help="How images are scaled."
)
@click.option("--size", type=Side(), default=0, help="Pixels; this and the next ones as the architecture has them.")
@click.option("--resize-size", type=Side(), default=0, help="Pixels.")
@click.option("--min-size", type=Side(), default=0, help="Pixels.")
@click.option("--max-size", type=Side(), default=0, help="Pixels.")
@click.option("--mean", type=float, nargs=3, callback=_numbers, default=None, help="Per channel, of values in [0, 1].")
@click.option("--std", type=float, nargs=3, callback=_numbers, default=None, help="Per channel, of values in [0, 1].")
@click.option("--score-threshold", type=float, help="Used where a caller names none.")
@click.option("--top-k", type=int, help="Used where a caller names none.")
@click.option("--max-batch-size", type=int, help="Most images at once.")
@click.option("--options", callback=_object, default="{}", help="JSON object for the builder.")
@click.option(
    "--samples",
    type=click.Path(path_type=Path),
    help="A folder of sample pictures with their right answers, or of arrays for tensor.",
)
@click.option("--least-right", type=click.FloatRange(0, 1), help="Share of them that must be answered right; 0.5.")
def add(**given: Any) -> None:
    """Add a model to the store. It appears there whole, or not at all.

    For example: flask model add --arch resnet50 --weights DEFAULT --name imagenet --version 1
    """
    given |= _timm(given["arch"], given["weights"], given["task"])
    if given["network"]:
        _add_network(given)
    elif given["code"] or not (given["arch"] and given["weights"]):
        _add_code(given)
    else:
        _add_weights(given)


def _add_weights(given: dict[str, Any]) -> None:
    from app.runtimes.importing import add as adding

    place = given["store"] or config.resolve().models_dir
    arch, sizes = given["arch"], {key: given[key] for key in ("size", "resize_size", "min_size", "max_size")}
    with terminal.told_progress("Adding", adding.STEPS) as (say, advance):
        new = adding.NewModel(
            arch=arch,
            weights=given["weights"],
            input_spec=adding.input_spec(arch, given["input_kind"], sizes, given["mean"], given["std"]),
            architecture_options=given["options"],
            half=given["half"],
            task=given["task"] or "",
            **_of_every_kind(given),
        )
        manifest = adding.add_model(new, place, force=given["force"], progress=say, advance=advance)
    _say_next(place, manifest)


def _of_every_kind(given: dict[str, Any]) -> dict[str, Any]:
    """What weights and whole networks are given alike."""
    right, serving = given["least_right"], ("score_threshold", "top_k", "max_batch_size")
    return {
        **{key: given[key] for key in ("labels", "name", "version", "description")},
        "sample_pictures": given["samples"],
        "serve": ServeSpec(**{key: given[key] for key in serving if given[key] is not None}),
        "tolerance": ToleranceSpec() if right is None else ToleranceSpec(right=right),
    }


def _timm(arch: str, weights: str, task: str | None) -> dict[str, Any]:
    """What --file and --task are for a network of timm."""
    if not (weights and timm_networks.is_named(arch)):
        return {"architecture": ""}
    return {"network": Path(weights), "architecture": arch, "task": task or timm_networks.tasks_of_timm()[0]}


def _add_network(given: dict[str, Any]) -> None:
    if not given["task"]:
        raise click.UsageError("--file needs --task: what the network is asked (TASK=classify).")
    from app.runtimes.importing import add_network as adding

    place = given["store"] or config.resolve().models_dir
    wanted = {key: given[key] for key in adding.READING_OPTIONS if given[key]} | {"options": _head_options(given)}
    with terminal.told_progress("Adding", adding.STEPS) as (say, advance):
        new = adding.NewNetwork(
            file=given["network"],
            task=given["task"],
            wanted=wanted,
            limit_seconds=given["timeout_seconds"] or adding.LIMIT_SECONDS,
            memory_mb=adding.MEMORY_MB if given["memory_mb"] is None else given["memory_mb"],
            architecture=given["architecture"],
            builder_options=given["options"],
            **_of_every_kind(given),
        )
        manifest = adding.add_network(new, place, force=given["force"], progress=say, advance=advance)
    _say_next(place, manifest)


def _add_code(given: dict[str, Any]) -> None:
    if not given["code"]:
        raise click.UsageError("Give --arch and --weights, --file and --task, or --code with the folder of a model.py.")
    from app.model_code import adding

    settings = config.resolve()
    place = given["store"] or settings.models_dir
    if settings.model_code == "off":
        raise terminal.Failure("MODEL_CODE is off.", next_step="Where its code may run: MODEL_CODE=on")
    names = ("timeout_seconds", "memory_mb", "tolerance")
    limits = {key: given[key] for key in names if given[key] is not None}
    of_class = frozenset(names) - limits.keys() - {"tolerance"}
    named = {key: given[key] for key in ("name", "version", "description")}
    code, is_trusted = given["code"], given["trust"]
    new = adding.NewCode(code, **named, limits=CodeSpec(**limits), is_trusted=is_trusted, of_class=of_class)
    manifest = adding.add(new, place, force=given["force"], say=_say)
    parameters = ", ".join((*manifest.signature["inputs"], *manifest.signature["options"]))
    click.echo(f"It takes {parameters}, and is asked at POST /v1/models/{given['name']}/predict.")
    click.echo(versions.next_step(place, manifest))


def _head_options(given: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"normalised": False} if given["not_normalised"] else {}
    return found if given["labels_from"] is None else {**found, "first_label": given["labels_from"]}


def _say_next(place: Path, manifest: Manifest) -> None:
    click.echo(versions.next_step(place, manifest))
    if sentence := _default_sentence(place, manifest):
        click.echo(sentence)


def _default_sentence(place: Path, manifest: Manifest) -> str:
    """Which model answers requests that name none; empty where another store is served, or nothing can be told."""
    try:
        settings = config.resolve()
        if settings.models_dir.resolve() != place.resolve():
            return ""
        routing = Routing(settings.models_dir, settings.state_dir, settings.models, defaults=settings.models_default)
        default = routing.choose(manifest.task, canary="never").manifest.name
    except CaskError:
        return ""
    by = "MODELS_DEFAULT names it" if default in settings.models_default else "MODELS_DEFAULT=<name> names another"
    return f"Requests to {manifest.task} that name no model are answered by {default} ({by})."


@command.command()
@any_model_argument
@click.option("--use", default="", help='The form that is to serve however fast it is, such as "openvino fp32".')
@click.option("--only", default="", help='Forms to try, with commas between: "openvino fp32,openvino int8".')
@click.option("--limit-seconds", type=float, default=600, show_default=True, help="Longest that one step may take.")
@click.option("--into-store", is_flag=True, help="Write beside the manifest, not into STATE_DIR.")
@click.option("--missing", is_flag=True, help="Leave out what has a report for here; take fitting files.")
@click.option("--rounds", type=int, default=4, show_default=True, help="Of timing.")
def build(model: str, use: str, only: str, limit_seconds: float, into_store: bool, missing: bool, rounds: int) -> None:
    """Build a model, or all of MODELS, for this machine.

    Tries each form it can be computed in, and chooses the fastest faithful one. Takes minutes."""
    terminal.need_torch()
    from app.runtimes.build import build as building

    settings = config.resolve()
    if not into_store:
        permissions.become_owner(settings.state_dir)
    chosen = manifests.find(settings.models_dir, (model,) if model else settings.models)
    names = tuple(filter(None, only.split(",")))
    build_options = building.BuildOptions(use, names, missing, limit_seconds, rounds, devices.resolve(settings.device))
    with terminal.told_progress("Building", len(chosen) * building.steps(build_options)) as (say, advance):
        building.build_all(
            chosen,
            settings.state_dir,
            build_options,
            is_shipped=into_store,
            is_missing_only=missing,
            progress=say,
            advance=advance,
        )
    click.echo("The engine serves it so after its next start.")


@command.command()
@model_argument
@version_argument
def environment(model: str, version: str) -> None:
    """Install what a model with code needs, from its lock.

    For a store that came from another machine. Without internet: from build/wheels/models."""
    from app.model_code import environments

    manifest = manifests.read(config.resolve().models_dir / model / version)
    if not (manifest.directory / environments.LOCK).exists():
        raise terminal.Failure(f"{manifest.key} has no {environments.LOCK}.", next_step="It needs no environment.")
    environments.install(manifest.directory, _say)
    click.echo(f"{environments.place(manifest.directory)} holds what {manifest.key} needs.")


# ── which version answers ────────────────────────────────────────────────────────────────────────────────────────────


build_option = click.option("--build", "is_built", is_flag=True, help="Build it for this machine first; minutes.")
anyway_option = click.option("--anyway", "is_anyway", is_flag=True, help="Also where it is slower than what serves.")


@command.command()
@model_argument
@version_argument
@build_option
@anyway_option
def promote(model: str, version: str, is_built: bool, is_anyway: bool) -> None:
    """Let a version answer every request.

    It is loaded beside the one that serves, and checked before anything changes. One that is slower here is
    refused, unless --anyway."""
    with _engine() as (client, settings):
        if is_built:
            _build_first(client, settings, model, version)
        _print_lines(versions.promote(client, settings, _say, model, version, is_anyway=is_anyway))


def _build_first(client: EngineClient, settings: Settings, model: str, version: str) -> None:
    """Build a version for this machine where it was not; the engine then computes it so."""
    terminal.need_torch()
    from app.runtimes.build import build as building

    chosen = manifests.find(settings.models_dir, (f"{model}@{version}",))
    permissions.become_owner(settings.state_dir)
    build_options = building.BuildOptions(is_reusing=True, device=devices.resolve(settings.device))
    building.build_all(chosen, settings.state_dir, build_options, is_missing_only=True, progress=_say)
    versions.take_build(client, _say, model, version)


@command.command()
@model_argument
def rollback(model: str) -> None:
    """Let the previous version answer again."""
    with _engine() as (client, _):
        _print_lines(versions.roll_back(client, _say, model))


@command.command()
@model_argument
@any_version_argument
@click.option("--share", type=float, required=True, help="Percent of the requests, such as 10 or 0.5; 0 ends it.")
@build_option
@anyway_option
def canary(model: str, version: str, share: float, is_built: bool, is_anyway: bool) -> None:
    """Let a version answer a share of the requests.

    Share 0 ends that. One that is slower here is refused, unless --anyway."""
    with _engine() as (client, settings):
        if is_built and share:
            _build_first(client, settings, model, version)
        _print_lines(versions.canary(client, _say, model, version, share, is_anyway=is_anyway))


@command.command("give-up")
def give_up() -> None:
    """End a change of versions that is under way.

    What served goes on. A load that hangs goes on in the engine, but blocks no other change."""
    with _engine() as (client, _):
        _print_lines(versions.give_up(client, _say))


@command.command()
@model_argument
@any_version_argument
@click.option("--end", is_flag=True, help="Ask it no more.")
def shadow(model: str, version: str, end: bool) -> None:
    """Ask a version too, unseen by callers.

    Without VERSION, print how its answers differ."""
    with _engine() as (client, settings):
        if version or end:
            _print_lines(versions.shadow(client, _say, model, "" if end else version))
        else:
            _print_lines(versions.differences(client, settings, model))


@contextlib.contextmanager
def _engine() -> Iterator[tuple[EngineClient, Settings]]:
    """The door to the running engine; says what to look at where it does not answer."""
    settings = known_settings.read(*known_settings.ENGINE)
    try:
        yield EngineClient(settings.engine_socket), settings
    except EngineAwayError as error:
        raise terminal.Failure(
            error.message,
            next_step="See whether the service runs, with the same ENV and STATE_DIR: flask doctor",
        ) from None
    except KeyboardInterrupt:
        raise terminal.Failure(
            "Nobody watches any more, but the engine goes on with it.",
            next_step="make model-versions, or make model-give-up to end it",
        ) from None


def _say(line: str) -> None:
    click.echo(f"  {line}")


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:8]
