"""What callers do: scenarios of one Python file, of a plugin, or our own, by name; and a mix of them. No sockets."""

from __future__ import annotations

import ast
import bisect
import importlib.util
import inspect
import itertools
import random
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from loadtest import mixes, model_examples, ours
from loadtest.profiles import unknown
from loadtest.scenario import Scenario
from loadtest.statuses import UsageError
from loadtest.turns import Turn, said_of

FILE_NAME = "loadtest.py"
PARTS = ("request", "check", "setup")
# Of the 64 that a picture's comment has room for; a run counts up from there, by so many as one request may need.
NONCE_BITS = 60
STEP = 4
NAMES_MOST = 250


def name_of(path: Path) -> str:
    """What the scenarios of a file are called: the file, or its folder where all such files have one name."""
    return path.resolve().parent.name if path.name == FILE_NAME else path.stem


def from_file(path: Path) -> list[Scenario]:
    """The scenarios of a model's folder or of a file: request() by its name, request_help() by that and _help; users.


    Raises UsageError for a file that cannot be read, raises, or has none.
    """
    if path.is_dir():
        return [model_examples.scenario(path)]
    name = name_of(path)
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as Python: {error}; expected a scenario file.") from None
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if not any(part_of(each)[0] == "request" for each in functions):
        if any(_is_of_locust(node) for node in ast.walk(tree)):
            # Not imported here: Locust replaces parts of the standard library.
            return [Scenario(name, None, source=str(path.resolve()))]
        raise UsageError(f"{path} has neither request() nor a Locust user class; docs/loadtest.md shows both.")
    return _scenarios(name, _module(path, name), path)


def part_of(function: str) -> tuple[str, str]:
    """request_help → request, _help; two empty words for a function that is none of a scenario's."""
    part, found, rest = function.partition("_")
    return (part, found + rest) if part in PARTS else ("", "")


def _is_of_locust(node: ast.AST) -> bool:
    named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    named += [each.name for each in node.names] if isinstance(node, ast.Import) else []
    return any(name.partition(".")[0] == "locust" for name in named)


def _module(path: Path, name: str) -> ModuleType:
    # As Locust and pytest do: what lies beside it can be imported.
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"scenario_{name}", path.resolve())
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - reported as a fault of the scenario
        told = error if isinstance(error, Exception) else RuntimeError(f"it ends the program with {error}")
        raise UsageError(f"{path} cannot be imported: {said_of(told)}.") from None
    return module


def _scenarios(name: str, module: ModuleType, path: Path) -> list[Scenario]:
    found: dict[str, dict[str, Callable[..., Any]]] = {}
    for function, value in vars(module).items():
        part, suffix = part_of(function)
        if part and inspect.isfunction(value):
            if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
                raise UsageError(f"{function} of {path} is async; expected a plain function: Locust's sockets wait.")
            found.setdefault(suffix, {})[part] = value
    if alone := [suffix for suffix, parts in found.items() if "request" not in parts and suffix]:
        told = ", ".join(f"{part}{suffix}" for suffix in alone for part in found[suffix])
        raise UsageError(f"{path} has {told}, but no request{alone[0]}; expected one for each.")
    shared = found.get("", {}).get("setup")
    return [
        Scenario(
            name + suffix,
            _with_turn(parts["request"]),
            parts.get("check"),
            parts.get("setup", shared),
            group=name + (suffix if "setup" in parts else ""),
            source=str(path.resolve()),
        )
        for suffix, parts in found.items()
        if "request" in parts
    ]


def _with_turn(request: Callable[..., Any]) -> Callable[[Turn], Any]:
    return request if inspect.signature(request).parameters else lambda _: request()


@dataclass(frozen=True)
class Registry:
    """Every scenario that can be named: of files, plugins, models with code, ours.

    ``models``: folders of the versions that answer. ``tasks``: of the service; None: not known.
    """

    files: tuple[Path, ...] = ()
    plugins: tuple[Path, ...] = ()
    models: tuple[Path, ...] = ()
    tasks: tuple[str, ...] | None = None

    @cached_property
    def own(self) -> dict[str, list[Scenario]]:
        """The scenarios of each file by its name. Raises UsageError for a name that we use."""
        found: dict[str, list[Scenario]] = {}
        for path in self.files:
            name = name_of(path)
            if name in found or name in mixes.tables() or name == ours.PAGE:
                raise UsageError(f"SCENARIO {str(path)!r} is called {name!r}, as another one is; rename the file.")
            found[name] = from_file(path)
        return found

    def mix(self, words: str) -> dict[str, float]:
        """Scenario → weight, of words such as ``claims:1 classify:3``. Raises UsageError.

        A word is a table of mixes.toml, a file or a plugin (all of its scenarios), a scenario, or a task of ours; one
        with a weight of 0 leaves out.
        """
        found: dict[str, float] = {}
        left_out: set[str] = set()
        for word in words.replace(",", " ").split():
            name, _, given = word.partition(":")
            weights, weight = self._named(name), _weight(word, given)
            left_out |= set() if weight else set(weights)
            for each, share in weights.items():
                found[each] = found.get(each, 0.0) + weight * share / sum(weights.values())
        if not any(weight for each, weight in found.items() if each not in left_out):
            raise UsageError(f"MIX {words!r} has no usable weights; expected numbers above 0.")
        if len(found) > NAMES_MOST:
            raise UsageError(f"MIX {words!r} has {len(found)} scenarios; expected at most {NAMES_MOST}.")
        return {each: weight for each, weight in found.items() if weight and each not in left_out}

    def _named(self, name: str) -> dict[str, float]:
        tables = mixes.tables()
        if name in tables:
            for each in tables[name]:
                self.find(each)
            return {each: float(weight) for each, weight in tables[name].items()}
        if scenarios := self._of_source(name):
            return dict.fromkeys([each.name for each in scenarios], 1.0)
        return {self.find(f"{name}_raw" if ours.is_task(name, self.tasks) else name).name: 1.0}

    def _of_source(self, name: str) -> list[Scenario]:
        if name in self.own:
            return self.own[name]
        places = [each / FILE_NAME for each in self.plugins if each.name == name]
        places += [each for each in self.models if each.parent.name == name]
        return next((from_file(each) for each in places if each.exists()), [])

    def find(self, name: str) -> Scenario:
        """One scenario. Raises UsageError for a name that nobody has."""
        sources = [*self.own, *(each.name for each in self.plugins if name.startswith(each.name)), name]
        for source in sources:
            for each in self._of_source(source):
                if each.name == name:
                    return each
        if found := ours.named(name, self.tasks):
            return found
        raise unknown("scenario", name, [*(each.name for s in self.own for each in self.own[s]), *self._all()])

    def _all(self) -> list[str]:
        plugins = [each.name for each in self.plugins if (each / FILE_NAME).is_file()]
        plugins += [each.parent.name for each in self.models]
        return [*plugins, *mixes.tables(), *ours.names(self.tasks or ())]


def _weight(word: str, given: str) -> float:
    try:
        weight = float(given or 1)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise UsageError(f"MIX says {word!r}; expected such as claims:1, with a number of 0 or more.")
    return weight


def build(
    mix: Mapping[str, float], sources: Mapping[str, str], more: Mapping[str, Scenario] = MappingProxyType({})
) -> list[Scenario]:
    """The scenarios of a mix, by name; ``sources``: the files of those that are not ours; ``more``: others."""
    found = {each.name: each for path in set(sources.values()) for each in from_file(Path(path))}
    for name in mix:
        if name not in found:
            found[name] = known = more.get(name) or ours.named(name, None) or Scenario(name, None)
            if not known.request:
                raise UsageError(f"{sources.get(name, 'loadtest')} has no scenario {name!r} any more.")
    return [found[name] for name in mix]


class Caller:
    """Chooses scenarios and has them make requests: the same for the same seed, but for the numbers in their bytes.

    ``known``: by group, what the scenarios' setups returned.
    ``first_nonce``: the number of the first turn; by chance when left out, whatever the seed, for a server that keeps
    answers would know the bytes of an earlier run.
    ``token``: shown with every request, unless empty.
    ``repeat_share`` (0 … 1) is the share of requests whose bytes are the same each time, so that a cache can answer.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        weights: Sequence[float],
        known: Mapping[str, Any],
        *,
        repeat_share: float = 0.0,
        seed: int = 0,
        patience_seconds: float = 30.0,
        token: str = "",
        first_nonce: int | None = None,
    ) -> None:
        self.scenarios = scenarios
        self._weights = list(itertools.accumulate(weights))
        opened: dict[str, Any] = {}
        for each in scenarios:
            if each.group not in opened:
                opened[each.group] = each.open(known.get(each.group))
        self._known = [opened[each.group] for each in scenarios]
        self._repeat_share, self._patience, self._token = repeat_share, patience_seconds, token
        self._chance = random.Random(seed)  # noqa: S311 - chance, not a secret
        self._nonce = secrets.randbits(NONCE_BITS) if first_nonce is None else first_nonce

    def next(self) -> Turn:
        """The next turn, by the weights of the mix, its first request made."""
        # As Random.choices does, without its checks.
        weights = self._weights
        return self.turn(bisect.bisect(weights, self._chance.random() * weights[-1], 0, len(weights) - 1))

    def turn(self, index: int, expect: Any = None) -> Turn:
        """A turn of one scenario; ``expect``: what it is told."""
        self._nonce += STEP
        turn = Turn(
            self.scenarios[index],
            index,
            self._nonce,
            self._chance,
            self._known[index],
            self._token,
            self._patience,
            self._chance.random() < self._repeat_share,
        )
        turn.expect = expect
        return turn.begin()
