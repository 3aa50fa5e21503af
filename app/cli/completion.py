"""What the shell proposes: environments, settings, models, versions. Nothing where the store cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from app import config
from app.errors import CaskError
from app.models import manifests


def environments(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """dev, test, staging, prod."""
    return _matching(incomplete, [(name, "") for name in config.ENVIRONMENTS])


def settings(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of settings with their meaning."""
    return _matching(incomplete.upper(), [(one.name, one.sentence) for one in config.DECLARATIONS.values()])


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of models in the store."""
    return _matching(incomplete, [(name, "") for name in _store()])


def versions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Versions of the model that was named before; of every model where none was."""
    named = context.params.get("model") or ""
    found = [version for name, each in _store().items() if named in ("", name) for version in each]
    return _matching(incomplete, [(version, "") for version in dict.fromkeys(found)])


def _store() -> dict[str, list[str]]:
    # A proposal that cannot be made is none; the command itself will say what is wrong.
    with contextlib.suppress(CaskError, OSError):
        return manifests.versions(config.resolve().models_dir)
    return {}


def _matching(incomplete: str, known: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    return [CompletionItem(name, help=words or None) for name, words in known if name.startswith(incomplete)]
