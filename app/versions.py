"""Operators' commands for versions: ``python -m app.versions``, behind make model-promote and its kin.

Each asks the engine over its socket, tells what goes on, and says at the end what serves now and what to type next.
Exit status: 0 done, or done already; 1 refused with the reason; 2 wrong usage or settings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from app import config
from app.config import Settings
from app.engine.client import EngineClient
from app.errors import CaskError, ChangeRefusedError, EngineAwayError, SettingsError
from app.roles import Roles, record_path

LAST_DIFFERENCES = 10
ROW = "{:<28} {:<10} {:<10} {:>6}  {:<10} {}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        settings = config.resolve()
        client = EngineClient(settings.engine_socket)
        for line in given.run(client, settings, given):
            print(line)
    except SettingsError as error:
        print(_words(error), file=sys.stderr)
        return 2
    except EngineAwayError as error:
        hint = "Does the service run, with the same ENV and STATE_DIR? What serves: make model-versions"
        print(f"FAIL: {error.message}\n      {hint}", file=sys.stderr)
        return 1
    except CaskError as error:
        print(f"FAIL: {error.message}\n      {error.hint}".rstrip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Nobody watches any more, but the engine goes on with it: make model-versions", file=sys.stderr)
        return 1
    return 0


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def promote(client: EngineClient, settings: Settings, given: argparse.Namespace) -> list[str]:
    """Load a version beside the one that serves, check it, then let it answer every request."""
    before, after = _change(client, "promote", given.model, given.version)
    if before == after:
        return [f"{given.model}@{after.active} answers already; nothing changed.", *_back(given.model, after)]
    return [
        *_serves(given.model, after),
        *_ended_canary(before),
        f"{given.model}@{before.active} stays loaded for {settings.models_keep_previous_seconds:g} s; "
        "a rollback is instant until then.",
        *_back(given.model, after),
    ]


def roll_back(client: EngineClient, settings: Settings, given: argparse.Namespace) -> list[str]:
    """Let the previous version answer again."""
    before, after = _change(client, "rollback", given.model)
    again = f"Forward again: make model-promote MODEL={given.model} VERSION={after.withdrawn}"
    if before == after:
        return [
            f"{given.model}@{after.active} answers already, since the rollback from {after.withdrawn}; "
            "nothing changed.",
            again,
        ]
    return [*_serves(given.model, after), *_ended_canary(before), again]


def canary(client: EngineClient, settings: Settings, given: argparse.Namespace) -> list[str]:
    """Let a version answer a share of the requests; share 0 ends it."""
    if given.share and not given.version:
        raise SettingsError("VERSION is missing.", hint=f"make model-canary MODEL={given.model} VERSION=2 SHARE=10")
    before, after = _change(client, "canary", given.model, given.version, given.share)
    if not after.canary:
        was = f"{given.model}@{before.canary} is no canary any more." if before.canary else "There was no canary."
        return [was, *_serves(given.model, after)]
    return [
        *_serves(given.model, after),
        "Callers choose with the header X-Model-Canary: always, or never.",
        f"All of it: make model-promote MODEL={given.model} VERSION={after.canary}",
        f"None of it: make model-canary MODEL={given.model} SHARE=0",
    ]


def shadow(client: EngineClient, settings: Settings, given: argparse.Namespace) -> list[str]:
    """Ask a version too, without anybody waiting for it; without VERSION, print how its answers differ."""
    if not given.version and not given.end:
        return _report(client, settings, given.model)
    before, after = _change(client, "shadow", given.model, "" if given.end else given.version)
    if not after.shadow:
        was = f"{given.model}@{before.shadow} is no shadow any more." if before.shadow else "There was no shadow."
        return [was, *_serves(given.model, after)]
    return [
        *_serves(given.model, after),
        f"{given.model}@{after.shadow} is asked too while the engine has time; callers get nothing of it.",
        f"How its answers differ: make model-shadow MODEL={given.model}",
        f"End it: make model-shadow MODEL={given.model} OPTIONS=--end",
    ]


def show(client: EngineClient, settings: Settings, given: argparse.Namespace) -> list[str]:
    """Which versions the engine holds, and what for."""
    status = client.status()
    lines = [ROW.format("MODEL", "ROLE", "STATE", "SHARE", "DIGEST", "COMPUTED BY").rstrip()]
    known = {name: Roles(**row) for name, row in status.get("roles", {}).items()}
    for row in status["models"]:
        roles = known.get(row["name"], Roles(row["version"]))
        if given.model in ("", row["name"]):
            share = f"{roles.share_of(row['version']):g} %"
            key, digest = f"{row['name']}@{row['version']}", row["digest"].removeprefix("sha256:")[:8]
            computed = row["computed_by"] or row["error"]
            lines.append(ROW.format(key, roles.role_of(row["version"]), row["state"], share, digest, computed))
    chosen = [name for name in known if given.model in ("", name)]
    return [*lines, *(line for name in chosen for line in _back(name, known[name]))]


def _report(client: EngineClient, settings: Settings, model: str) -> list[str]:
    """The counts since the engine started, and the last differences that were written down."""
    status = client.status()
    roles, counts = status.get("roles", {}).get(model), status.get("shadows", {}).get(model)
    if roles is None:
        raise ChangeRefusedError(f"No model {model!r} is served here.", hint="make model-versions lists them.")
    now = f"{model}@{roles['shadow']} is the shadow." if roles["shadow"] else f"{model} has no shadow now."
    if counts is None:
        return [now, "Nothing was compared since the engine started."]
    file = record_path(settings.state_dir, model)
    lines = file.read_text(encoding="utf-8").splitlines()[-LAST_DIFFERENCES:] if file.exists() else []
    return [
        now,
        f"{model}@{counts['version']}: {counts['compared']} compared, {counts['same_share']:g} % with the same result; "
        f"scores differ by {counts['mean_difference']:g} on average, by {counts['largest_difference']:g} at most.",
        f"{counts['dropped']} were left out for the callers' sake, {counts['failed']} failed.",
        f"The last differences, of {file}:" if lines else "No difference was worth a line.",
        *lines,
    ]


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _change(
    client: EngineClient, action: str, model: str, version: str = "", share: float = 0.0
) -> tuple[Roles, Roles]:
    done = client.change(action, model, version, share, say=lambda line: print(f"  {line}", flush=True))
    return Roles(**done["before"]), Roles(**done["after"])


def _serves(model: str, roles: Roles) -> list[str]:
    lines = [f"{model}@{roles.active} answers {roles.share_of(roles.active):g} % of the requests now."]
    if roles.canary:
        lines.append(f"{model}@{roles.canary} answers {roles.canary_share:g} %, as the canary.")
    return lines


def _ended_canary(before: Roles) -> list[str]:
    return [f"The canary {before.canary} has ended with that."] if before.canary else []


def _back(model: str, roles: Roles) -> list[str]:
    return [f"Back to {roles.previous}: make model-rollback MODEL={model}"] if roles.previous else []


def _words(error: CaskError) -> str:
    return " ".join(filter(None, (error.message, error.hint)))


# ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────────

Run = Callable[[EngineClient, Settings, argparse.Namespace], list[str]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app.versions",
        description="Which version of a model answers, while the service runs. No request is lost by any of these.",
        epilog="Exit status: 0 done, or done already; 1 refused with the reason; 2 wrong usage or settings. "
        "See docs/operations.md.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add(commands, "promote", promote, version=True)
    _add(commands, "rollback", roll_back)
    _add(commands, "canary", canary, version=False).add_argument(
        "--share", type=float, required=True, help="percent of the requests, such as 10 or 0.5; 0 ends the canary"
    )
    shadowing = _add(commands, "shadow", shadow, version=False)
    shadowing.add_argument("--end", action="store_true", help="ask it no more")
    _add(commands, "show", show, is_model_required=False)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Run,
    *,
    version: bool | None = None,
    is_model_required: bool = True,
) -> argparse.ArgumentParser:
    """``version``: whether it must be given; None when the command takes none."""
    words = (run.__doc__ or "").strip()
    command = commands.add_parser(name, help=words, description=words, prog=f"make model-{NAMES.get(name, name)}")
    command.add_argument("--model", required=is_model_required, default="", help="its name, as in the store")
    if version is not None:
        command.add_argument("--version", required=version, default="", help="a version that lies in the store")
    command.set_defaults(run=run)
    return command


NAMES = {"show": "versions"}


if __name__ == "__main__":
    sys.exit(main())
