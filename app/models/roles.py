"""Which version of each model answers: roles, the moves between them, and the file that keeps them. A leaf.

``<STATE_DIR>/roles.json`` is the pointer: the engine alone writes it, by rename, and every web process looks at it
before it chooses a version. It outlives restarts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from app.errors import ChangeRefusedError, RolesInvalidError
from app.models import manifests
from app.storage import files, json_files

FILE_NAME = "roles.json"
RECORD_FOLDER = "shadow"
MAX_SHARE = 100.0

Role = Literal["active", "canary", "shadow", "previous", "withdrawn", "held"]
# In the order in which people want to read them.
ROLES: tuple[Role, ...] = ("active", "canary", "shadow", "previous", "withdrawn", "held")


@dataclass(frozen=True)
class Roles:
    """The versions of one model by what they are for; empty where there is none.

    ``active`` answers. ``canary`` answers ``canary_share`` percent of the requests instead. ``shadow`` is asked too,
    and nobody waits for it. ``previous`` is what a rollback goes back to, ``withdrawn`` what it went away from; either
    may be canary or shadow besides.
    """

    active: str
    previous: str = ""
    canary: str = ""
    canary_share: float = 0.0
    shadow: str = ""
    withdrawn: str = ""

    def role_of(self, version: str) -> Role:
        """The first role of a version; ``held`` when it has none: MODELS names it, or it is not unloaded yet."""
        for role in ROLES[:-1]:
            if getattr(self, role) == version:
                return role
        return "held"

    def share_of(self, version: str) -> float:
        """Percent of the requests without a version of their own that this version answers."""
        if version == self.active:
            return MAX_SHARE - self.canary_share
        return self.canary_share if version == self.canary else 0.0

    @property
    def serving(self) -> tuple[str, ...]:
        """The versions that must be loaded, the most urgent first."""
        return tuple(version for version in (self.active, self.canary, self.shadow) if version)

    @property
    def named(self) -> tuple[str, ...]:
        """Every version with a role, in the order of ROLES."""
        return tuple(dict.fromkeys(version for role in ROLES[:-1] if (version := getattr(self, role))))

    def promote(self, version: str) -> Roles:
        """``version`` answers from now on. Ends a canary: its share was measured against another version."""
        if version == self.active:
            return self
        return replace(self._answered_by(version), previous=self.active, withdrawn="")

    def roll_back(self) -> Roles:
        """The previous version answers again. Twice is once. Raises ChangeRefusedError when there is none."""
        if self.withdrawn and not self.previous:
            return self
        if not self.previous:
            raise ChangeRefusedError(
                f"There is no earlier version to go back to; {self.active} is the first that served here.",
                hint="Promote the one you want: make model-promote MODEL=… VERSION=…",
            )
        return replace(self._answered_by(self.previous), previous="", withdrawn=self.active)

    def start_canary(self, version: str, share: float) -> Roles:
        """``version`` answers ``share`` percent. Raises ChangeRefusedError when it is active, or the share no share."""
        if not 0 < share <= MAX_SHARE:
            raise ChangeRefusedError(
                f"A share of {share:g} percent cannot be given.", hint="More than 0 and at most 100; 0 ends the canary."
            )
        if version == self.active:
            raise ChangeRefusedError(
                f"{version} answers every request already; it cannot be its own canary.", hint="Give another VERSION."
            )
        return replace(self, canary=version, canary_share=share, shadow=self._shadow_unless(version))

    def end_canary(self) -> Roles:
        """Every request goes to the active version."""
        return replace(self, canary="", canary_share=0.0)

    def start_shadow(self, version: str) -> Roles:
        """``version`` is asked too. Raises ChangeRefusedError when it answers callers."""
        if version in (self.active, self.canary):
            raise ChangeRefusedError(
                f"{version} is the {self.role_of(version)} version and answers callers; it cannot be a shadow.",
                hint="Give another VERSION.",
            )
        return replace(self, shadow=version)

    def end_shadow(self) -> Roles:
        """Nobody is asked besides."""
        return replace(self, shadow="")

    def _answered_by(self, version: str) -> Roles:
        """``version`` alone answers."""
        return replace(self, active=version, canary="", canary_share=0.0, shadow=self._shadow_unless(version))

    def _shadow_unless(self, version: str) -> str:
        return "" if self.shadow == version else self.shadow


def path(state_dir: Path) -> Path:
    """Where the file lies."""
    return state_dir / FILE_NAME


def record_path(state_dir: Path, model: str) -> Path:
    """Where the newest differences of a model's shadow lie; the older ones in a file beside, ending in ``.1``."""
    return state_dir / RECORD_FOLDER / f"{model}.jsonl"


def read(state_dir: Path) -> dict[str, Roles]:
    """Model name → roles; empty before the first start. Raises RolesInvalidError."""
    file = path(state_dir)
    try:
        table = json.loads(files.read(file, files.TEXT_BYTES))
        return {name: _from_json(row) for name, row in table["models"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RolesInvalidError(
            f"{file} cannot be used: {type(error).__name__}: {error}.",
            hint="Restore it from a backup, or remove it: the engine then begins with what MODELS names.",
        ) from None


def write(state_dir: Path, known: Mapping[str, Roles]) -> None:
    """Replace the file, whole or not at all, and not before it is on the disk. Raises OSError."""
    table = {"models": {name: asdict(roles) for name, roles in known.items()}}
    json_files.replace(path(state_dir), table, indent=2)


def settle(models_dir: Path, selection: Sequence[str], known: Mapping[str, Roles]) -> dict[str, Roles]:
    """The roles of every model that MODELS serves, in its order; nothing is loaded and no manifest read.

    Where MODELS is empty, what ``known`` holds comes first and in its order, then the others by name: the first model
    of a task answers requests that name none, and one that is added later must not take its place.
    As ``known`` says where store and MODELS allow it, else the previous or the newest version is active.
    ``name@version`` in MODELS allows those versions only, ``name`` every one in the store. Raises ManifestError.
    """
    pinned = pins(models_dir, selection)
    in_store = manifests.versions(models_dir)
    settled = {}
    names = pinned if selection else [name for name in dict.fromkeys((*known, *pinned)) if name in pinned]
    for name in names:
        versions = pinned[name]
        allowed = in_store[name] if is_free(name, selection) else versions
        newest = max(versions, key=manifests.version_order)
        settled[name] = _settle(known.get(name), allowed, newest)
    return settled


def pins(models_dir: Path, selection: Sequence[str]) -> dict[str, list[str]]:
    """Model name → the versions that MODELS names; of a name alone the newest in the store. Raises ManifestError."""
    found: dict[str, list[str]] = {}
    for name, version in manifests.choose(models_dir, selection):
        found.setdefault(name, []).append(version)
    return found


def is_free(name: str, selection: Sequence[str]) -> bool:
    """Whether any version of this model may serve: MODELS names it without versions, or names nothing."""
    return not selection or name in selection


def _settle(known: Roles | None, allowed: Sequence[str], newest: str) -> Roles:
    if known is None or known.active not in allowed:
        return Roles(known.previous if known and known.previous in allowed else newest)
    gone: dict[str, Any] = {role: "" for role in ROLES[1:-1] if getattr(known, role) not in allowed}
    left = replace(known, **gone)
    return left if left.canary else left.end_canary()


def _from_json(row: dict[str, Any]) -> Roles:
    roles = Roles(**row)
    texts = [getattr(roles, role) for role in ROLES[:-1]]
    if not roles.active or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{row!r} are no roles")
    if not 0 <= float(roles.canary_share) <= MAX_SHARE:
        raise ValueError(f"a share of {roles.canary_share!r} percent")
    return roles
