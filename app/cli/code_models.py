"""``flask model new``, ``test`` and ``dev``: for people who write a model with code."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import config
from app.cli import terminal
from app.config import ROOT, Settings
from app.errors import ManifestError
from app.model_making import templates
from app.models import manifests
from app.models.manifests import CodeSpec

if TYPE_CHECKING:
    from app.model_making import testing

# Where folders are that people work on; git ignores it, so each may be a repository of its own.
DRAFTS = ROOT / "drafts"
NAME_WIDTH = 9
KINDS = "\n".join(f"  {name:<{NAME_WIDTH}}{words}" for name, words in templates.known().items())


@click.command(
    cls=terminal.Command,
    help=f"Begin a model with code: a folder that works, with examples.\n\n\b\nTemplates:\n{KINDS}",
)
@click.argument("name")
@click.option("--template", default="text", show_default=True, help="What it takes and gives; see above.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write it; else drafts/NAME.")
def new(name: str, template: str, folder: Path | None) -> None:
    place = folder or DRAFTS / name
    written = templates.write(name, template, place)
    shown = _short(place)
    click.echo(f"{shown}/")
    for path in written:
        click.echo(f"  {path.relative_to(place)}")
    if (place / "requirements.txt").exists():
        needed = [line for line in (place / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
        click.echo(f"It needs {', '.join(needed)}, which is installed for this model alone when it is tested or added.")
    click.echo(
        f"""
Next: make model-test MODEL={shown}
      make model-dev  MODEL={shown}
      make model-add  CODE={shown} NAME={name} VERSION=1"""
    )


@click.command(cls=terminal.Command)
@click.argument("model")
@click.option("--write-expected", is_flag=True, help="Write the answers to the examples beside them.")
@click.option("--trust", is_flag=True, help="Also where it holds pickles, which run code when loaded.")
@click.option("--timeout-seconds", type=click.FloatRange(1, 3600), help="Longest call of predict (the class's, or 30).")
@click.option("--load-seconds", type=click.FloatRange(1, 3600), default=60.0, help="Longest start.")
@click.option("--memory-mb", type=click.IntRange(0), help="Most it may allocate (the class's, or 4096); 0: no limit.")
@terminal.json_option
@click.pass_context
def test(context: click.Context, model: str, write_expected: bool, trust: bool, is_json: bool, **limits: Any) -> None:
    """Test a model with code as callers will meet it.

    MODEL is a folder with a model.py, a name in drafts/, or a name or name@version of the store. It is copied, its
    requirements are installed anew, and nothing of it stays. Ends with 1 where a check fails."""
    from app.model_making import testing

    settings = config.resolve()
    subject = _subject(model, settings, limits, is_trusted=trust)
    _refuse_off(settings)
    if not is_json:
        click.echo(f"{subject.name}  {_short(subject.folder)}\n")
    found = []
    for verdict in testing.run(subject, settings, writes_expected=write_expected):
        found.append(verdict)
        if not is_json:
            _print(verdict)
    is_green = all(verdict.verdict == "ok" for verdict in found)
    if is_json:
        terminal.print_json({"ok": is_green, "checks": [asdict(verdict) for verdict in found]})
    else:
        click.echo(f"\n  {_count(found)} in {sum(verdict.seconds for verdict in found):.1f} s.")
    if not is_green:
        context.exit(terminal.REFUSED)


@click.command(cls=terminal.Command)
@click.argument("model")
@click.option("--load-seconds", type=click.FloatRange(1, 3600), default=60.0, help="Longest start.")
@click.option("--memory-mb", type=click.IntRange(0), help="Most it may allocate (the class's, or 4096); 0: no limit.")
def dev(model: str, **limits: Any) -> None:
    """Serve a folder with a model.py while you write it.

    MODEL is a folder, or a name in drafts/. Each save starts its process anew; the last good one answers until then.
    breakpoint() in predict stops in this terminal. Needs no Apache; serves no other model. Ctrl-C ends it."""
    import threading

    from app.model_making.development import Development
    from app.supervision import standalone

    settings = config.load()
    _refuse_off(settings)
    if settings.is_deployed:
        raise terminal.Failure(f"This is for development, and ENV is {settings.env!r}.", next_step="ENV=dev")
    folder = next((each for each in (Path(model), DRAFTS / model) if (each / "model.py").is_file()), None)
    if folder is None:
        raise terminal.Failure(
            f"MODEL is {model!r}: no folder with a model.py, and none in {_short(DRAFTS)}/.",
            next_step="Begin one: make model-new NAME=tickets TEMPLATE=text",
        )
    folder = folder.resolve()
    name = folder.name if manifests.NAME_PATTERN.fullmatch(folder.name) else "model"
    address = f"http://{config.in_url(settings.listen_host)}:{settings.port}"
    standalone.handle_signals()
    spec, of_class = _limits(limits)
    with Development(folder, name, settings, spec, _tell, of_class=of_class) as development:
        server = development.server()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        click.echo(f"{name}  {_short(folder)}\n\n{_how_to_ask(folder, name, address)}")
        try:
            development.watch()
        except KeyboardInterrupt:
            click.echo()
        finally:
            server.shutdown()


def _how_to_ask(folder: Path, name: str, address: str) -> str:
    path = f"{address}/v1/models/{name}/predict"
    found = [each for each in sorted((folder / "examples").glob("*")) if not each.name.endswith(".expected.json")]
    if not found:
        return f"  {path}\n  {address}/docs\n"
    kind = mimetypes.guess_type(found[0].name)[0] or "application/octet-stream"
    data = _short(found[0])
    return f"  curl -H 'Content-Type: {kind}' --data-binary @{data} \\\n    {path}\n"


def _tell(line: str) -> None:
    word = line.split()[0]
    click.echo(f"  {line.replace(word, click.style(word, fg=terminal.COLOURS.get(word)), 1)}")


def _limits(given: dict[str, Any]) -> tuple[CodeSpec, frozenset[str]]:
    """As the options say, and the names of those that the class may declare."""
    said = {name: value for name, value in given.items() if value is not None}
    return CodeSpec(**said), frozenset(given) - said.keys()


def _subject(model: str, settings: Settings, limits: dict[str, Any], *, is_trusted: bool) -> testing.Subject:
    """Which folder is meant. Raises Failure for none."""
    from app.model_making.testing import Subject

    for folder in (Path(model), DRAFTS / model):
        if (folder / "model.py").is_file():
            spec, of_class = _limits(limits)
            return Subject(folder.resolve().name, folder.resolve(), spec, is_trusted=is_trusted, of_class=of_class)
    try:
        (manifest,) = manifests.find(settings.models_dir, (model,))
    except ManifestError as error:
        raise terminal.Failure(
            f"MODEL is {model!r}: no folder with a model.py, nothing in {_short(DRAFTS)}/, and not in the store "
            f"{_short(settings.models_dir)}.",
            next_step=f"Begin one: make model-new NAME=tickets TEMPLATE=text. {error.hint}",
        ) from None
    if manifest.code is None:
        raise terminal.Failure(
            f"{manifest.key} has no code; its task is {manifest.task}.", next_step="make model-check, make model-report"
        )
    return Subject(manifest.name, manifest.directory, manifest.code, manifest, is_trusted=True)


def _refuse_off(settings: Settings) -> None:
    if settings.model_code == "off":
        raise terminal.Failure("MODEL_CODE is off.", next_step="Where its code may run: MODEL_CODE=on")


def _print(verdict: testing.Verdict) -> None:
    seconds = "" if verdict.verdict == "skip" else f"{verdict.seconds:.1f} s"
    terminal.print_verdict(verdict.verdict, f"{verdict.check:<9} {seconds:>7}", verdict.words, verdict.hint)


def _count(found: Sequence[testing.Verdict]) -> str:
    counts = [(word, sum(verdict.verdict == word for verdict in found)) for word in ("ok", "fail", "skip")]
    return ", ".join(f"{count} {word}" for word, count in counts if count or word == "ok")


def _short(folder: Path) -> str:
    return str(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder)
