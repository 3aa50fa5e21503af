"""What is sent and what is promised, as tables: profiles.toml, mixes.toml and slo.toml, read and checked."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.schedule import Stage
from loadtest.statuses import UsageError

FOLDER = Path(__file__).resolve().parent
MODELS = ("open", "closed")
STAGE_KEYS = {"seconds", "rate", "from", "to", "callers"}


@dataclass(frozen=True)
class Profile:
    """What is sent, as in profiles.toml. ``claims``: percentile shares such as 0.95. Rates are absolute by now."""

    name: str
    question: str
    stages: tuple[Stage, ...]
    mix: str
    claims: tuple[float, ...] = (0.5, 0.95)
    model: str = "open"
    arrivals: str = "poisson"
    warm_up_seconds: float = 0.0
    judged_from_seconds: float = 0.0
    think_seconds: float = 0.0
    stop_when_bad: float = 0.9
    max_drift: float = 0.0
    max_memory_growth: float = 0.0

    @property
    def judged_from(self) -> float:
        """Requests that were meant to start earlier are not judged; seconds from the beginning."""
        return max(self.warm_up_seconds, self.judged_from_seconds)


@dataclass(frozen=True)
class Slo:
    """Limits that decide, as in slo.toml. ``limits_ms``: percentile share → milliseconds.

    ``scenarios``: a scenario's own limits, ``metrics``: those of figures that checks note; both as they stand there.
    """

    name: str
    limits_ms: Mapping[float, float]
    max_failed_share: float = 0.0
    confidence: float = 0.95
    max_lag_p99_ms: float = 20.0
    scenarios: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


def read_profile(name: str, capacity_rps: float | None = None, path: Path = FOLDER / "profiles.toml") -> Profile:
    """One profile with its rates as numbers. Raises UsageError for what is unknown, wrong or needs a capacity."""
    table = _choose(_read(path), name, path)
    stages = tuple(_stage(each, name, capacity_rps) for each in table.pop("stages", ()))
    if not stages:
        raise UsageError(f"Profile {name!r} has no stages; expected at least one, in {path.name}.")
    claims = tuple(_share(each, name) for each in table.pop("claims", ("p50", "p95")))
    try:
        profile = Profile(name=name, stages=stages, claims=claims, **table)
    except TypeError:
        unknown = sorted(set(table) - {field.name for field in dataclasses.fields(Profile)})
        raise UsageError(
            f"Profile {name!r} says {', '.join(unknown) or 'too little'}; see the head of {path.name}."
        ) from None
    _check(profile)
    return profile


def _check(profile: Profile) -> None:
    for key, value, right in (
        ("model", profile.model, MODELS),
        ("arrivals", profile.arrivals, ("poisson", "constant")),
    ):
        if value not in right:
            raise UsageError(f"{key} of profile {profile.name!r} is {value!r}; expected {' or '.join(right)}.")
    if profile.model == "closed" and not all(stage.callers for stage in profile.stages):
        raise UsageError(f"Profile {profile.name!r} is closed; expected callers in each of its stages.")
    if profile.judged_from >= sum(stage.seconds for stage in profile.stages):
        raise UsageError(f"Profile {profile.name!r} ends before anything is judged; lengthen a stage.")


def is_shaped(profile: Profile) -> bool:
    """Whether the rate changes during the profile: the change is its question."""
    return len({rate for stage in profile.stages for rate in (stage.from_rate, stage.to_rate)}) > 1


def scaled(profile: Profile, rate: float) -> Profile:
    """The shape of the profile with this highest rate."""
    highest = max(max(stage.from_rate, stage.to_rate) for stage in profile.stages)
    factor = rate / highest
    stages = tuple(
        dataclasses.replace(stage, from_rate=stage.from_rate * factor, to_rate=stage.to_rate * factor)
        for stage in profile.stages
    )
    return dataclasses.replace(profile, stages=stages)


def stretched(profile: Profile, seconds: float | None) -> Profile:
    """The shape of the profile in so many seconds after its warm-up, where they are given."""
    if seconds is None:
        return profile
    warm_up = profile.warm_up_seconds
    factor = seconds / (sum(stage.seconds for stage in profile.stages) - warm_up)
    first, *others = profile.stages
    stages = [dataclasses.replace(first, seconds=warm_up + (first.seconds - warm_up) * factor)]
    stages += [dataclasses.replace(stage, seconds=stage.seconds * factor) for stage in others]
    judged_from = warm_up + (profile.judged_from_seconds - warm_up) * factor if profile.judged_from_seconds else 0.0
    return dataclasses.replace(profile, stages=tuple(stages), judged_from_seconds=judged_from)


def with_rate(profile: Profile, rate: float | None, seconds: float | None) -> Profile:
    """The profile at this rate and of this length, where they are given; its warm-up comes on top.

    A level profile becomes one stage. A shape stays: the rate is its highest one, and all its stages are stretched.
    Raises UsageError.
    """
    if rate is not None and rate <= 0:
        raise UsageError(f"RATE is {rate:g}; expected requests per second above 0.")
    if seconds is not None and seconds <= 0:
        raise UsageError(f"SECONDS is {seconds:g}; expected a span above 0.")
    if is_shaped(profile) and profile.model == "open":
        return stretched(profile if rate is None else scaled(profile, rate), seconds)
    if rate is None and seconds is None:
        return profile
    first = profile.stages[0]
    judged = seconds or sum(stage.seconds for stage in profile.stages) - profile.warm_up_seconds
    level = rate if rate is not None else first.from_rate
    stage = Stage(judged + profile.warm_up_seconds, level, level, first.callers)
    return dataclasses.replace(profile, stages=(stage,), judged_from_seconds=0.0)


def with_warm_up(profile: Profile, seconds: float | None) -> Profile:
    """The profile with another warm-up, where one is given; the judged span stays as long as it is."""
    if seconds is None:
        return profile
    if seconds < 0:
        raise UsageError(f"--warm-up is {seconds:g}; expected 0 seconds or more.")
    first = profile.stages[0]
    longer = dataclasses.replace(first, seconds=first.seconds - profile.warm_up_seconds + seconds)
    if longer.seconds <= 0:
        raise UsageError(f"--warm-up is {seconds:g}; the first stage of profile {profile.name!r} would be empty.")
    return dataclasses.replace(profile, stages=(longer, *profile.stages[1:]), warm_up_seconds=seconds)


def with_thinking(profile: Profile, seconds: float | None) -> Profile:
    """The profile whose callers think for so long on average, where that is given. Raises UsageError for open ones."""
    if seconds is None:
        return profile
    if profile.model != "closed" or seconds < 0:
        raise UsageError(
            f"--think is {seconds:g} in the {profile.model} model; expected 0 or more, and --model closed: only callers"
            " who wait for an answer think after it."
        )
    return dataclasses.replace(profile, think_seconds=seconds)


def with_model(profile: Profile, model: str | None, callers: int) -> Profile:
    """The profile in the other model, where one is asked for; closed with so many callers in each stage."""
    if model is None or model == profile.model:
        return profile
    if model not in MODELS:
        raise UsageError(f"--model is {model!r}; expected {' or '.join(MODELS)}.")
    if model == "closed" and callers < 1:
        raise UsageError(f"--callers is {callers}; expected at least 1.")
    stages = tuple(dataclasses.replace(stage, callers=callers if model == "closed" else 0) for stage in profile.stages)
    if model == "open" and not any(stage.to_rate for stage in stages):
        raise UsageError(f"Profile {profile.name!r} has no rates; give --rate for the open model.")
    return dataclasses.replace(profile, model=model, stages=stages)


def read_slo(name: str = "default", path: Path = FOLDER / "slo.toml") -> Slo:
    """One table of slo.toml, or of a file of the user's: ``mine.toml:table``. Raises UsageError for what is wrong."""
    if ".toml" in name:
        file, _, name = name.partition(":")
        path, name = Path(file), name or "default"
    table = _choose(_read(path), name, path)
    limits = limits_of({key: table.pop(key) for key in list(table) if key.endswith("_ms") and key[0] == "p"}, name)
    for scenario, own in table.get("scenarios", {}).items():
        limits_of({key: value for key, value in own.items() if key != "max_failed_share"}, f"{name}.{scenario}")
    for metric, own in table.get("metrics", {}).items():
        limits_of(own, f"{name}.{metric}", ("_most", "_least"))
    try:
        slo = Slo(name, limits, **table)
    except TypeError:
        raise UsageError(f"Slo {name!r} has an unknown limit among {', '.join(table)}; see {path.name}.") from None
    if not 0.5 <= slo.confidence < 1:
        raise UsageError(f"confidence of {name!r} is {slo.confidence}; expected 0.5 or more and less than 1.")
    return slo


def limits_of(table: Mapping[str, float], name: str, endings: tuple[str, ...] = ("_ms",)) -> dict[float, float]:
    """Percentile share → limit, of keys such as p95_ms. Raises UsageError for another key, or what is no number."""
    found = {}
    for key, limit in table.items():
        ending = next((each for each in endings if key.endswith(each)), None)
        if ending is None or isinstance(limit, bool) or not isinstance(limit, int | float):
            right = " or ".join(f"p95{each} = 40" for each in endings)
            raise UsageError(f"{name!r} says {key} = {limit!r}; expected such as {right}.")
        found[_share(key.removesuffix(ending), name)] = float(limit)
    return found


def names(path: Path = FOLDER / "profiles.toml") -> dict[str, str]:
    """Profile → the question it answers."""
    return {name: str(table.get("question", "")) for name, table in _read(path).items()}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def _choose(tables: Mapping[str, dict[str, Any]], name: str, path: Path) -> dict[str, Any]:
    if name not in tables:
        raise unknown(f"table of {path.name}", name, list(tables))
    return dict(tables[name])


# Of a long list, those that are most like the name.
NAMES_TOLD = 12


def unknown(what: str, name: str, known: Sequence[str]) -> UsageError:
    """Nobody is called so; perhaps another was meant."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = difflib.get_close_matches(name, known, NAMES_TOLD, 0.0) if len(known) > NAMES_TOLD else known
    others = f" and {len(known) - len(shown)} others" if len(known) > len(shown) else ""
    return UsageError(f"There is no {what} {name!r}; there are {', '.join(shown)}{others}.{hint}")


def _stage(table: Mapping[str, Any], name: str, capacity_rps: float | None) -> Stage:
    if unknown := set(table) - STAGE_KEYS:
        raise UsageError(
            f"A stage of profile {name!r} says {', '.join(sorted(unknown))}; expected {', '.join(sorted(STAGE_KEYS))}."
        )
    if not table.get("seconds", 0) > 0:
        raise UsageError(f"A stage of profile {name!r} lasts {table.get('seconds')} seconds; expected more than 0.")
    begin, end = table.get("from", table.get("rate", 0)), table.get("to", table.get("rate", 0))
    return Stage(
        float(table["seconds"]),
        _rate(begin, name, capacity_rps),
        _rate(end, name, capacity_rps),
        int(table.get("callers", 0)),
    )


def _rate(value: float | str, name: str, capacity_rps: float | None) -> float:
    if isinstance(value, str):
        if capacity_rps is None:
            raise UsageError(
                f"Profile {name!r} asks for {value} of the capacity, which nobody has measured here."
                " Run `make loadtest-search` first, or give RATE."
            )
        return capacity_rps * float(value.removesuffix("%")) / 100
    if value < 0:
        raise UsageError(f"A rate of profile {name!r} is {value}; expected 0 or more.")
    return float(value)


def _share(word: str, name: str) -> float:
    try:
        share = float(f"0.{word.removeprefix('p')}")
    except ValueError:
        share = 0.0
    # p5 could be 5 % or, read as p50 is, a half.
    if not word.startswith("p") or len(word) < 3 or not 0 < share < 1:
        raise UsageError(f"{name!r} names the percentile {word!r}; expected such as p05, p50, p95, p99, p999.")
    return share


def word_of(share: float) -> str:
    """A percentile as people write it: 0.95 → p95, 0.999 → p99.9."""
    return f"p{'0' * (share < 0.1)}{share * 100:.4g}"
