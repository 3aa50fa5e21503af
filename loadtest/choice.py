"""Which scenarios a run is of, and whether its target is one that they may be sent to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import Settings, plugin_settings
from loadtest import guard, model_examples, ours, reference, scenarios
from loadtest.guard import Target
from loadtest.scenario import Scenario
from loadtest.statuses import LoadTestError, UsageError

DEFAULT_MIX = "callers"


@dataclass(frozen=True)
class Choice:
    """A mix of scenarios, and what the target says of its models; ``is_cask``: it is a service of this kind."""

    mix: dict[str, float]
    scenarios: list[Scenario]
    models: list[dict[str, Any]]
    is_cask: bool

    @property
    def sources(self) -> dict[str, str]:
        """Scenario → its file, of those that are not ours."""
        return {each.name: each.source for each in self.scenarios if each.source}


def choose(
    target: Target,
    settings: Settings,
    mix: str = "",
    files: str = "",
    default: str = DEFAULT_MIX,
    limited: Iterable[str] = (),
) -> Choice:
    """The scenarios of ``mix`` (MIX); left out, all of the ``files`` (SCENARIO, words), or the ``default``.

    Words of the default that end in ``?`` may be missing. ``limited``: scenarios with limits of their own.
    Asks the target what it is. Raises RefusedError where it is another environment than was asked, UsageError.
    """
    paths = tuple(Path(word) for word in files.split())
    is_cask = guard.is_cask(target)
    if is_cask:
        guard.check_environment(target, settings.env)
    models = reference.models_of(target) if is_cask else []
    tasks = reference.tasks_of(models)
    words = mix or " ".join(scenarios.name_of(path) for path in paths) or _that_are_there(default, is_cask, tasks)
    plugins = tuple(plugin_settings.folders(settings)) if settings.plugins_dir.is_dir() else ()
    registry = scenarios.Registry(paths, plugins, _with_examples(models, settings.models_dir), tasks)
    found = registry.mix(words) if words else {}
    chosen = [registry.find(name) for name in found]
    for name in limited:
        try:
            registry.find(name)
        except UsageError as error:
            raise UsageError(f"The SLO has limits of {name!r}. {error}") from None
    own = [each.name for each in chosen if not each.source]
    if own and not is_cask:
        raise LoadTestError(
            f"{target.url} is no Cask: its /status tells no environment; {own[0]} needs one. SCENARIO=file.py loads"
            " another service, and MIX chooses among its scenarios."
        )
    return Choice(found, chosen, models, is_cask)


def _with_examples(models: Iterable[Mapping[str, Any]], store: Path) -> tuple[Path, ...]:
    """The folders here of the versions that answer there, of those that show examples."""
    folders = (store / str(each.get("name")) / str(each.get("version")) for each in models)
    return tuple(each for each in folders if (each / model_examples.FOLDER).is_dir())


def _that_are_there(words: str, is_cask: bool, tasks: tuple[str, ...] | None) -> str:
    named = {word: word.removesuffix("?") for word in words.split()}
    return " ".join(name for word, name in named.items() if name == word or (is_cask and ours.named(name, tasks)))
