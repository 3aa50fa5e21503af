"""Which versions the engine holds, and the changes that an operator asks for. Knows no sockets and no torch.

A version is loaded beside the one that serves, warmed up and compared with its stored answers; only then the pointer
moves (``app.models.roles``), by one rename. Versions that no role needs are let go of after a while.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.engine import pace
from app.engine.current_change import CurrentChange
from app.engine.worker import Clock, Say, Slot, Workers
from app.errors import ChangeRefusedError, ManifestError, RolesInvalidError
from app.host import machine
from app.models import builds, manifests, roles
from app.models.manifests import Manifest
from app.models.roles import Roles
from app.supervision import pulse

log = logging.getLogger("cask.engine")

# How soon to look again at a version whose last work is not answered yet.
RELEASE_PERIOD_SECONDS = 0.02
LET_GO_SECONDS = 5.0
# What one may take before it is given up: loading gigabytes and proving their answers takes minutes.
CHANGE_SECONDS = 900.0
ACTIONS = ("promote", "rollback", "canary", "shadow", "reload")
GIVE_UP = "give-up"
# The roles of a model that does not serve yet.
NOTHING = Roles("")


@dataclass(frozen=True)
class Change:
    """One requested of an operator. ``share`` in percent; a canary's share of 0 and a shadow's empty version end them.

    ``is_anyway``: also where the version is slower than the one that serves.
    """

    action: str
    model: str
    version: str = ""
    share: float = 0.0
    is_anyway: bool = False


class Changes:
    """Keeps the roles, makes one change at a time, and unloads what nobody needs."""

    def __init__(
        self, models_dir: Path, state_dir: Path, selection: Sequence[str], *, keep_seconds: float, clock: Clock
    ) -> None:
        """Settles what is to serve; nothing is loaded or written yet. Raises ManifestError."""
        self._models_dir = models_dir
        self._state_dir = state_dir
        self._selection = selection
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._pins = roles.pins(models_dir, selection)
        known = _read(state_dir)
        # Also of models that MODELS leaves out this time: they come back as they were.
        self._kept = known
        self.roles = roles.settle(models_dir, selection, known)
        for name in self.roles.keys() & known.keys():
            if known[name].active != self.roles[name].active:
                words = "%s@%s served last, but is not in the store or not in MODELS; %s serves"
                log.warning(words, name, known[name].active, self.roles[name].active)
        self._workers: Workers
        self._change_seconds = CHANGE_SECONDS
        self._change = threading.Lock()
        self._current: CurrentChange | None = None
        # Key of a version → the change that was given up while its load went on.
        self._left: dict[str, CurrentChange] = {}
        # Guards what is needed against what is let go of.
        self._keeping = threading.Lock()
        # Thread of a change → the version that it is about to point to.
        self._claimed: dict[int, str] = {}
        self._moving = threading.Lock()
        # Key of an active version that could not be read at the start → why.
        self._unreadable: dict[str, ManifestError] = {}
        self._idle_since: dict[str, float] = {}
        self._images_seen: dict[str, int] = {}
        self._wake = threading.Event()
        makers = (self._promote, self._roll_back, self._canary, self._shadow, self._reload)
        self._actions: dict[str, Callable[[Change, CurrentChange], Roles]] = dict(zip(ACTIONS, makers, strict=True))

    def manifests_to_load(self) -> list[Manifest]:
        """What the start loads: every active version first, then canaries, shadows and what MODELS names.

        One that cannot be read is left out and told. Raises ManifestError when no active one can be read.
        """
        found = []
        for name, role in self.roles.items():
            try:
                found.append(manifests.read(self._models_dir / name / role.active))
            except ManifestError as error:
                key = f"{name}@{role.active}"
                log.error("model %s cannot be served: %s %s", key, error.message, error.hint)  # noqa: TRY400
                self._unreadable[key] = error
        if not found:
            raise next(iter(self._unreadable.values()))
        others = [(name, version) for name, role in self.roles.items() for version in role.serving[1:]]
        others += [(name, version) for name in self.roles for version in self._pinned(name)]
        for name, version in dict.fromkeys(others):
            if version == self.roles[name].active:
                continue
            try:
                found.append(manifests.read(self._models_dir / name / version))
            except ManifestError as error:
                # It answers nobody who has not asked for it; what does answer must start.
                log.warning("%s@%s is not loaded: %s", name, version, error.message)
        return found

    def start(self, workers: Workers) -> None:
        """Write the roles down and begin to look for what can be unloaded."""
        self._workers = workers
        try:
            roles.write(self._state_dir, {**self._kept, **self.roles})
        except OSError:
            # Serving goes on; web processes then choose as MODELS says.
            log.exception("%s cannot be written", roles.path(self._state_dir))
        threading.Thread(target=self._unload_for_ever, name="unloader", daemon=True).start()

    def apply(self, change: Change, say: Say = lambda line: None) -> dict[str, Any]:
        """Make one change. Returns the model's roles before and after. Raises ChangeRefusedError, ModelLoadError,
        ManifestError; then nothing has changed for callers.
        """
        if change.action == GIVE_UP:
            return {"given_up": self._give_up()}
        before = self._roles_of(change)
        slot = self._workers.slots.get(f"{change.model}@{before.active}")
        was_away = slot is None or slot.state == "failed"
        edited = self._edited(change, say)
        current = CurrentChange(_words(change), self._clock, say)
        # The way back is open also while something loads for minutes; that change then gives up.
        make = self._make if self._is_instant(change, before) else self._make_alone
        after = make(change, current)
        moved = {"before": asdict(before), "after": asdict(after)}
        return {"model": change.model, **moved, "edited": edited, "was_away": was_away}

    def _edited(self, change: Change, say: Say) -> str:
        """What differs between the manifest that serves and the one in the store, of one version; empty: nothing."""
        slot = self._workers.slots.get(f"{change.model}@{change.version}")
        if slot is None or slot.state != "ready":
            return ""
        try:
            stored = manifests.read(self._models_dir / change.model / change.version)
        except ManifestError:
            # The change itself says so.
            return ""
        if stored.digest == slot.manifest.digest:
            return ""
        words = f"{manifests.differences(slot.manifest, stored)}; its digest is {stored.digest} now"
        say(f"{stored.key} was edited in place: {words}")
        return words

    def _make_alone(self, change: Change, current: CurrentChange) -> Roles:
        if not self._change.acquire(blocking=False):
            raise ChangeRefusedError(
                f"Another change of versions is under way: {self._current}.",
                hint="Wait until it has ended, or end it with make model-give-up; then ask again.",
            )
        try:
            self._refuse_left(change)
            self._current = current
            after: Roles = current.run(lambda: self._make_when_started(change, current), self._change_seconds)
        except ChangeRefusedError:
            if current.is_left:
                log.warning("given up: %s; its thread goes on", current)
                self._left[_key(change)] = current
            raise
        else:
            return after
        finally:
            self._change.release()
            current.has_let_go.set()

    def _refuse_left(self, change: Change) -> None:
        left = self._left.get(_key(change))
        if left is not None and left.is_left:
            raise ChangeRefusedError(
                f"{_key(change)} is still being loaded by a change that was given up: {left}.",
                hint=f"Wait until that has ended, take another version, or end the engine: kill {os.getpid()}; "
                "Apache starts a new one.",
            )

    def _make_when_started(self, change: Change, current: CurrentChange) -> Roles:
        if not self._workers.is_started.is_set():
            current.say("waiting until the models of the start are loaded")
            self._workers.is_started.wait()
        with pulse.heat.exempt():
            return self._make(change, current)

    def _make(self, change: Change, current: CurrentChange) -> Roles:
        try:
            return self._actions[change.action](change, current)
        finally:
            with self._keeping:
                self._claimed.pop(threading.get_ident(), None)
            self._wake.set()

    def _give_up(self) -> str:
        """End what is under way; returns what it was. Raises ChangeRefusedError when there is nothing to end."""
        current = self._current
        if current is None or not self._change.locked() or not current.give_up("an operator asked for it"):
            raise ChangeRefusedError(
                "No change of versions is under way.", hint="make model-versions shows what serves."
            )
        # The thread that waited for it lets go in a moment; then another change may begin.
        current.has_let_go.wait(LET_GO_SECONDS)
        return str(current)

    def status(self) -> dict[str, Any]:
        """Roles by model, and why versions that should serve could not be read, for the status frame."""
        return {
            "roles": {name: asdict(role) for name, role in self.roles.items()},
            "unreadable": {key: error.message for key, error in list(self._unreadable.items())},
        }

    def unload(self) -> float | None:
        """Let go of what nobody needed for long enough. Returns the seconds until the next look; None is never."""
        pauses, released = [], False
        for key in list(self._workers.slots):
            with self._keeping:
                if self._is_needed(key):
                    self._idle_since.pop(key, None)
                    continue
                if self._was_used(key):
                    self._idle_since[key] = self._clock()
                left = self._idle_since.setdefault(key, self._clock()) + self._keep_seconds - self._clock()
                if left > 0:
                    pauses.append(left)
                elif self._workers.release(key):
                    del self._idle_since[key], self._images_seen[key]
                    released = True
                else:
                    pauses.append(RELEASE_PERIOD_SECONDS)
        if released:
            machine.return_memory()
        return min(pauses, default=None)

    def _was_used(self, key: str) -> bool:
        """Whether it has predicted since the last look: a job keeps the version that it was begun with."""
        images = self._workers.slots[key].watch.summary.images
        before, self._images_seen[key] = self._images_seen.get(key), images
        return before is not None and images != before

    # ── actions ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _promote(self, change: Change, current: CurrentChange) -> Roles:
        now = self._now(change.model)
        self._make_ready(change, current)
        self._refuse_slower(change, current.say)
        return self._move(change.model, now, now.promote(change.version), current)

    def _roll_back(self, change: Change, current: CurrentChange) -> Roles:
        now = self.roles[change.model]
        after = now.roll_back()
        if after == now:
            return now
        self._make_ready(Change(change.action, change.model, after.active), current)
        return self._move(change.model, now, after, current)

    def _canary(self, change: Change, current: CurrentChange) -> Roles:
        now = self.roles[change.model]
        if not change.share:
            return self._move(change.model, now, now.end_canary(), current)
        after = now.start_canary(change.version, change.share)
        self._make_ready(change, current)
        self._refuse_slower(change, current.say)
        return self._move(change.model, now, after, current)

    def _shadow(self, change: Change, current: CurrentChange) -> Roles:
        now = self.roles[change.model]
        if not change.version:
            return self._move(change.model, now, now.end_shadow(), current)
        after = now.start_shadow(change.version)
        self._make_ready(change, current)
        self._refuse_other_parameters(change)
        return self._move(change.model, now, after, current)

    def _reload(self, change: Change, current: CurrentChange) -> Roles:
        """The same version again, for instance when a faster form of it has been built."""
        now = self.roles[change.model]
        manifest = self._manifest(change.model, change.version or now.active)
        if manifest.key not in self._workers.slots:
            raise ChangeRefusedError(f"{manifest.key} is not loaded.", hint="Promote it, or restart the engine.")
        self._workers.hold(manifest, current.say, commit=current.commit)
        machine.return_memory()
        # Written again although nothing moved: web processes then read the manifest again, which may have changed.
        return self._move(change.model, now, now, current)

    def _make_ready(self, change: Change, current: CurrentChange) -> None:
        manifest = self._manifest(change.model, change.version)
        self._refuse_other_task(manifest)
        with self._keeping:
            self._claimed[threading.get_ident()] = manifest.key
        if self._workers.holds(manifest):
            current.say(f"{manifest.key} is loaded already")
            return
        active = self._active(change.model)
        slot = self._workers.slots.get(active)
        goes_on = f" beside {active}, which goes on" if slot is not None and slot.state == "ready" else ""
        current.say(f"loading {manifest.key}{goes_on}")
        # What has served before goes back without delay.
        self._workers.hold(manifest, current.say, is_proven=change.action != "rollback", commit=current.commit)
        self._unreadable.pop(manifest.key, None)

    def _move(self, model: str, before: Roles, after: Roles, current: CurrentChange) -> Roles:
        """The moment of the change: before the rename the old roles hold, after it the new ones."""
        with self._moving:
            if self._now(model) != before:
                raise ChangeRefusedError(
                    f"The versions of {model} were changed meanwhile; this change was not made.",
                    hint="Look with make model-versions; then ask again.",
                )
            current.commit()
            together = {**self.roles, model: after}
            self._write(together)
            with self._keeping:
                self.roles = together
        if after != before:
            current.say("the pointer has moved")
            log.info("versions of %s: %s", model, asdict(after))
        return after

    def _write(self, together: dict[str, Roles]) -> None:
        try:
            roles.write(self._state_dir, {**self._kept, **together})
        except OSError as error:
            raise ChangeRefusedError(
                f"{roles.path(self._state_dir)} cannot be written: {error.strerror}.",
                hint="Make room on the disk, or mend the folder's owner; then ask again.",
            ) from None

    # ── what is allowed, and what is needed ───────────────────────────────────────────────────────────────────────

    def _roles_of(self, change: Change) -> Roles:
        """What serves now. A model that was added since the start has no roles before its first promotion."""
        if change.model in self.roles:
            return self.roles[change.model]
        if change.model not in manifests.versions(self._models_dir):
            raise ChangeRefusedError(
                f"No model {change.model!r} is served here.",
                hint=f"There are: {', '.join(self.roles)}. A new one: make model-add, then make model-promote.",
            )
        if self._selection:
            raise ChangeRefusedError(
                f"MODELS does not name {change.model}.", hint=f"Write {change.model} into MODELS, and start again."
            )
        if change.action != "promote":
            raise ChangeRefusedError(
                f"{change.model} is not served yet.", hint=f"First: make model-promote MODEL={change.model} VERSION=…"
            )
        return NOTHING

    def _now(self, model: str) -> Roles:
        return self.roles.get(model, NOTHING)

    def _active(self, model: str) -> str:
        """The key of the version that answers; no version's where none does."""
        return f"{model}@{self._now(model).active}"

    def _manifest(self, model: str, version: str) -> Manifest:
        """The version as it lies in the store now. Raises ChangeRefusedError, ManifestError."""
        there = manifests.versions(self._models_dir).get(model, [])
        if version not in there:
            raise ChangeRefusedError(
                f"{self._models_dir} holds no {model} of version {version!r}.",
                hint=f"It has: {', '.join(there) or 'none'}. Add it with make model-add.",
            )
        if not roles.is_free(model, self._selection) and version not in self._pins[model]:
            raise ChangeRefusedError(
                f"MODELS allows {model} in version {', '.join(self._pins[model])} only, not {version}.",
                hint=f"Write {model} without a version into MODELS and restart, to let commands choose it.",
            )
        return manifests.read(self._models_dir / model / version)

    def _is_instant(self, change: Change, now: Roles) -> bool:
        """Whether nothing need be loaded to go back, or to end what was tried."""
        if change.action == "rollback":
            slot = self._workers.slots.get(f"{change.model}@{now.previous}")
            return not now.previous or (slot is not None and slot.state == "ready")
        return (change.action == "canary" and not change.share) or (change.action == "shadow" and not change.version)

    def _refuse_other_task(self, manifest: Manifest) -> None:
        active = self._workers.slots.get(self._active(manifest.name))
        if active is not None and active.manifest.task != manifest.task:
            raise ChangeRefusedError(
                f"{manifest.key} is for {manifest.task}, {active.manifest.key} is for {active.manifest.task}.",
                hint="A version must do what the one before it did; add it under another name.",
            )

    def _refuse_other_parameters(self, change: Change) -> None:
        """A shadow with code is asked what callers ask of the version that answers."""
        keys = (self._active(change.model), f"{change.model}@{change.version}")
        slots = [self._workers.slots.get(key) for key in keys]
        taken = [[slot.manifest.signature.get(part) for part in ("inputs", "options")] for slot in slots if slot]
        if any(each != taken[0] for each in taken):
            raise ChangeRefusedError(
                f"{keys[1]} takes other parameters than {keys[0]}, so it cannot be asked what callers ask of that.",
                hint=f"Try it by its version in requests, or with a canary: make model-canary MODEL={change.model} …",
            )

    def _refuse_slower(self, change: Change, say: Say) -> None:
        """A version that was not built yet may take ten times as long, which callers would be the first to notice."""
        old = self._workers.slots.get(self._active(change.model))
        new = self._workers.slots[f"{change.model}@{change.version}"]
        if old is new or old is None or old.model is None or new.model is None or new.manifest.code:
            return
        found = pace.slower(new.model, old.model)
        if found is None:
            return
        words = (
            f"{new.manifest.key} is slower here: {found[0] * 1000:.1f} ms an image ({new.model.computed_by}); "
            f"{old.manifest.key} takes {found[1] * 1000:.1f} ms ({old.model.computed_by})"
        )
        if not change.is_anyway:
            raise ChangeRefusedError(f"{words}. Nothing has changed.", hint=self._faster(new, change))
        say(words)

    def _faster(self, new: Slot, change: Change) -> str:
        anyway = "let it answer as it is with ANYWAY=yes (--anyway)."
        if builds.read(self._state_dir, new.manifest, new.model.processor if new.model else "") is not None:
            return f"It is built for this machine already; {anyway}"
        share = f" SHARE={change.share:g}" if change.share else ""
        return (
            f"Build it first: make model-{change.action} MODEL={change.model} VERSION={change.version}{share} "
            f"BUILD=yes (--build), which takes minutes; or {anyway}"
        )

    def _is_needed(self, model_key: str) -> bool:
        name, _, version = model_key.partition("@")
        return (
            model_key in self._claimed.values() or version in self._now(name).serving or version in self._pinned(name)
        )

    def _pinned(self, model: str) -> list[str]:
        """What MODELS names with its version stays loaded."""
        named = [entry.partition("@") for entry in self._selection]
        return [version for name, _, version in named if name == model and version]

    def _unload_for_ever(self) -> None:
        while True:
            self._workers.is_started.wait()
            try:
                pause = self.unload()
            except Exception:
                log.exception("unloading failed; will retry")
                pause = None
            self._wake.wait(pause)
            self._wake.clear()


def _key(change: Change) -> str:
    return f"{change.model}@{change.version}" if change.version else change.model


def _words(change: Change) -> str:
    return f"{change.action} {_key(change)}"


def _read(state_dir: Path) -> dict[str, Roles]:
    try:
        return roles.read(state_dir)
    except RolesInvalidError as error:
        log.warning("%s: %s %s", error.code, error.message, error.hint)
        return {}
