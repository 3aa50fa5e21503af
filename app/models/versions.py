"""What operators do with versions: ``flask model promote`` and its kin, behind make model-promote.

Each asks the engine over its socket, tells what goes on, and gives lines that say what serves now and what to type
next. Raises EngineAwayError, ChangeRefusedError, ModelLoadError, ManifestError.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.config import Settings
from app.engine.client import EngineClient, Say
from app.errors import ChangeRefusedError, SettingsError
from app.models import manifests
from app.models.manifests import Manifest
from app.models.roles import Roles, record_path

LAST_DIFFERENCES = 10


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def promote(
    client: EngineClient, settings: Settings, say: Say, model: str, version: str, *, is_anyway: bool = False
) -> list[str]:
    """Load a version beside the one that serves, check it, then let it answer every request.

    ``is_anyway``: also where it is slower.
    """
    done = client.change("promote", model, version, is_anyway=is_anyway, say=say)
    before, after = Roles(**done["before"]), Roles(**done["after"])
    if before == after and done.get("edited"):
        return [
            f"{model}@{after.active} answers with its manifest as it was edited ({done['edited']}).",
            "It was loaded anew and gave its stored answers; what it answered before cannot be had back by a rollback.",
            "Rather add a new version the next time: make model-add with another VERSION.",
        ]
    if before == after and done.get("was_away"):
        return [f"{model}@{after.active} is loaded, and answers again.", *_back(model, after)]
    if before == after:
        return [f"{model}@{after.active} answers already; nothing changed.", *_back(model, after)]
    if not before.active:
        return [*_serves(model, after), "It is new here, and is loaded at each start from now on."]
    return [
        *_serves(model, after),
        *_ended_canary(before),
        f"{model}@{before.active} stays loaded for {settings.models_keep_previous_seconds:g} s; "
        "a rollback is instant until then.",
        *_back(model, after),
    ]


def roll_back(client: EngineClient, say: Say, model: str) -> list[str]:
    """Let the previous version answer again."""
    before, after = _roles(client.change("rollback", model, say=say))
    again = f"Forward again: make model-promote MODEL={model} VERSION={after.withdrawn}"
    if before == after:
        return [
            f"{model}@{after.active} answers already, since the rollback from {after.withdrawn}; nothing changed.",
            again,
        ]
    return [*_serves(model, after), *_ended_canary(before), again]


def canary(
    client: EngineClient, say: Say, model: str, version: str, share: float, *, is_anyway: bool = False
) -> list[str]:
    """Let a version answer a share of the requests; share 0 ends it. ``is_anyway``: also where it is slower."""
    if share and not version:
        raise SettingsError("VERSION is missing.", hint=f"make model-canary MODEL={model} VERSION=2 SHARE=10")
    before, after = _roles(client.change("canary", model, version, share, is_anyway=is_anyway, say=say))
    if not after.canary:
        was = f"{model}@{before.canary} is no canary any more." if before.canary else "There was no canary."
        return [was, *_serves(model, after)]
    return [
        *_serves(model, after),
        "Callers choose with the header X-Model-Canary: always, or never.",
        f"All of it: make model-promote MODEL={model} VERSION={after.canary}",
        f"None of it: make model-canary MODEL={model} SHARE=0",
    ]


def take_build(client: EngineClient, say: Say, model: str, version: str) -> None:
    """A version that is loaded already is loaded anew, so that it is computed as it was built."""
    if any(row["version"] == version and row["state"] == "ready" for row in held(client, model)):
        client.change("reload", model, version, say=say)


def shadow(client: EngineClient, say: Say, model: str, version: str) -> list[str]:
    """Ask a version too, without anybody waiting for it; without a version, ask none any more."""
    before, after = _roles(client.change("shadow", model, version, say=say))
    if not after.shadow:
        was = f"{model}@{before.shadow} is no shadow any more." if before.shadow else "There was no shadow."
        return [was, *_serves(model, after)]
    return [
        *_serves(model, after),
        f"{model}@{after.shadow} is asked too while the engine has time; callers get nothing of it.",
        f"How its answers differ: make model-shadow MODEL={model}",
        f"End it: make model-shadow MODEL={model} OPTIONS=--end",
    ]


def give_up(client: EngineClient, say: Say) -> list[str]:
    """End the change that is under way."""
    done = client.change("give-up", "", say=say)
    return [f"Given up: {done['given_up']}. What served goes on."]


def held(client: EngineClient, model: str = "") -> list[dict[str, Any]]:
    """Each version that the engine holds, of one model or of all: role, state, share in percent, what computes it."""
    status = client.status()
    known = {name: Roles(**row) for name, row in status.get("roles", {}).items()}
    found = []
    for row in status["models"]:
        if model in ("", row["name"]):
            roles = known.get(row["name"], Roles(row["version"]))
            version = row["version"]
            about = {"role": roles.role_of(version), "state": row["state"], "share": roles.share_of(version)}
            computed = {"digest": row["digest"], "computed_by": row["computed_by"], "error": row["error"]}
            found.append({"model": row["name"], "version": version, **about, **computed})
    return [*found, *_unreadable(status, model)]


def _unreadable(status: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """Versions that should serve and could not be read when the engine started."""
    rows = []
    for key, error in status.get("unreadable", {}).items():
        name, _, version = key.partition("@")
        about = {"role": "active", "state": "failed", "share": 0.0, "digest": "", "computed_by": "", "error": error}
        rows.append({"model": name, "version": version, **about})
    return [row for row in rows if model in ("", row["model"])]


def ways_back(client: EngineClient, model: str = "") -> list[str]:
    """For each model with a previous version, how to let that answer again."""
    known = {name: Roles(**row) for name, row in client.status().get("roles", {}).items()}
    return [line for name, roles in known.items() if model in ("", name) for line in _back(name, roles)]


def differences(client: EngineClient, settings: Settings, model: str) -> list[str]:
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


def next_step(store: Path, manifest: Manifest) -> str:
    """What makes a version serve that was just added."""
    promote = f"while the service runs: make model-promote MODEL={manifest.name} VERSION={manifest.version}"
    if len(manifests.versions(store)[manifest.name]) > 1:
        return f"It serves nobody yet; {promote}"
    return f"It is served from the next start on (where MODELS is set, name it there), or {promote}"


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _roles(done: dict[str, Any]) -> tuple[Roles, Roles]:
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
