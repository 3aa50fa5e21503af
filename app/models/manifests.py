"""Model manifests: what stands in models/<name>/<version>/manifest.toml. A leaf; knows no torch."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from app.errors import ManifestError
from app.inference import results
from app.inference.results import Options
from app.storage import files

FILE_NAME = "manifest.toml"
NAME_PATTERN = re.compile(results.NAME)

# The name of one of ``app.tasks``.
Task = str
InputKind = Literal["crop", "letterbox", "fit"]

TEXTS = ("name", "version", "task", "architecture", "weights", "sha256", "description", "golden")
# Which sizes each kind of input needs.
SIZES = {"crop": ("size", "resize_size"), "letterbox": ("size",), "fit": ("min_size", "max_size")}
MAX_SIDE_PIXELS = 8192
# What stands beside the image in a letterbox.
LETTERBOX_GREY = 114
NOT_SQUARE = (
    "An input of fixed sides that are not equal is not supported: size is one number, the side of a square. "
    "kind = 'fit' keeps the shape of each picture."
)
GREY = (
    "Networks take RGB here: give mean and std three times. One for grey pictures (1 channel) must be widened first: "
    "w.repeat(1, 3, 1, 1) / 3 on its first convolution."
)
# The ending of a whole network, converted when it was added; other weights belong to an architecture by name.
NETWORK_SUFFIX = ".xml"
# The word for a model with code where others have a task.
CODE = "code"
# And for a network whose arrays are taken and given as they are. Both are asked by what they promise, their signature.
TENSOR = "tensor"
BY_SIGNATURE = (CODE, TENSOR)
# What is wrong, and the hint that mends it.
Wrong = tuple[str, str]


def between(default: Any, least: int, most: int) -> Any:
    """A number of a manifest: its default, and the bounds of what is right for it, both included."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class InputSpec:
    """How the web tier scales an image before it goes to the engine as uint8 RGB, height × width × 3.

    ``crop``: the shorter side is scaled to ``resize_size`` pixels, then the centre ``size`` × ``size`` is cut out.
    ``letterbox``: the longer side is scaled to ``size``, the rest of the ``size`` × ``size`` square is grey, image at
    the top left.
    ``fit``: as torchvision's GeneralizedRCNNTransform scales: the shorter side to ``min_size`` unless the longer one
    would pass ``max_size``; no padding, so shapes differ.
    ``whole``: all of it, of ``width`` × ``height`` whatever its shape was, or as it is where they are 0; for models
    with code, never in a manifest.
    ``mean`` and ``std`` are per channel, of values in [0, 1]; the model normalises, not the web tier.
    """

    kind: InputKind | Literal["whole"]
    size: int = 0
    resize_size: int = 0
    min_size: int = 0
    max_size: int = 0
    width: int = 0
    height: int = 0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ServeSpec:
    """What is used when the caller does not say, and how the engine may batch."""

    top_k: int = between(results.TOP_K, 0, results.MAX_RESULTS)
    score_threshold: float = between(results.SCORE_THRESHOLD, 0, 1)
    iou_threshold: float = between(results.IOU_THRESHOLD, 0, 1)
    max_results: int = between(results.USUAL_RESULTS, 0, results.MAX_RESULTS)
    # A batch of 0 would never be taken, and the engine would spin.
    max_batch_size: int = between(8, 1, 1024)
    # Instead of the former where a GPU computes.
    max_gpu_batch_size: int = between(64, 1, 1024)
    # None: as ENGINE_MAX_QUEUE_DELAY_MS says for all models.
    max_queue_delay_ms: float | None = between(None, 0, 10000)


@dataclass(frozen=True)
class ToleranceSpec:
    """How far a built form may be from eager fp32: least agreement, largest loss of mAP (0.005 is half a point).

    ``right``: of the samples whose right answer is known, the least share that the model must answer right.
    """

    agreement: float = between(0.995, 0, 1)
    map_loss: float = between(0.005, 0, 1)
    right: float = between(0.5, 0, 1)


@dataclass(frozen=True)
class CodeSpec:
    """How the process of a model with code is limited, and what it promises.

    ``timeout_seconds``: longest call of predict. ``load_seconds``: longest start. ``memory_mb``: most that it may
    allocate; 0 is no limit. ``tolerance``: how far numbers may be from the stored answers to its examples, as a part of
    those above 1. ``signature``: JSON, as model-add wrote it.
    """

    timeout_seconds: float = between(30.0, 1, 3600)
    load_seconds: float = between(120.0, 1, 3600)
    memory_mb: int = between(4096, 0, 4_000_000)
    tolerance: float = between(0.001, 0, 1)
    signature: str = "{}"


@dataclass(frozen=True)
class Manifest:
    """One version of one model. ``digest`` identifies weights and everything that shapes the answers."""

    name: str
    version: str
    task: Task
    architecture: str
    weights: str
    sha256: str
    labels: tuple[str, ...]
    input: InputSpec
    serve: ServeSpec
    directory: Path
    digest: str
    description: str = ""
    demonstration: bool = False
    random_weights: bool = False
    architecture_options: dict[str, Any] = field(default_factory=dict)
    golden: str = ""
    held_out: dict[str, Any] = field(default_factory=dict)
    tolerance: ToleranceSpec = ToleranceSpec()
    # Other names for labels, by which callers may ask for them; answers have the labels.
    aliases: dict[str, str] = field(default_factory=dict)
    # Of a model with code.
    code: CodeSpec | None = None

    @functools.cached_property
    def signature(self) -> dict[str, Any]:
        """What a model with code takes and gives, see ``app.model_code.signature``; empty for another."""
        found: dict[str, Any] = json.loads(self.code.signature) if self.code else {}
        return found

    def label_of(self, text: str) -> str:
        """The label that a caller means by this text: a label or an alias, without regard to case where none is exact.

        Empty where there is none.
        """
        names = {**self.aliases, **{label: label for label in self.labels}}
        if text in names:
            return names[text]
        return next((label for name, label in names.items() if name.casefold() == text.casefold()), "")

    @property
    def is_network(self) -> bool:
        """Whether its weights are a whole network that OpenVINO computes, not those of an architecture of torch."""
        return self.weights.endswith(NETWORK_SUFFIX)

    @property
    def weights_path(self) -> Path:
        return self.directory / self.weights

    @property
    def golden_path(self) -> Path | None:
        return self.directory / self.golden if self.golden else None

    @property
    def key(self) -> str:
        """``name@version``, the way MODELS and log lines write it."""
        return f"{self.name}@{self.version}"

    def default_options(self) -> Options:
        """The options used where the caller gave none."""
        from app import tasks

        if self.code:
            return results.Options()
        return tasks.BY_NAME[self.task].default_options(self.serve)


def read(directory: Path) -> Manifest:
    """Read and check one manifest. Raises ManifestError with the file, the value and what was expected."""
    path = directory / FILE_NAME
    try:
        raw = files.read(path, files.TEXT_BYTES)
        table = tomllib.loads(raw.decode())
    except FileNotFoundError:
        raise ManifestError(f"{path} does not exist.", hint="Add a model with `make model-add`.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path} cannot be read: {files.reason(error)}.", hint="It must be a TOML file.") from None
    manifest = _build(path, table, hashlib.sha256(raw).hexdigest())
    try:
        _check(path, manifest)
    except TypeError as error:
        # A list or a table where a text or a number belongs.
        raise ManifestError(f"{path}: {error}.", hint="See docs/models.md for the keys of a manifest.") from None
    return manifest


def _build(path: Path, table: dict[str, Any], digest: str) -> Manifest:
    known = {f.name for f in fields(Manifest)} - {"directory", "digest"}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ManifestError(f"{path}: unknown key {unknown[0]!r}.", hint=f"Known keys: {', '.join(sorted(known))}.")
    try:
        spec = dict(table.get("input", {}))
        code = CodeSpec(**table["code"]) if table.get("task") in BY_SIGNATURE else None
        if not_square := sorted({"width", "height"} & set(spec)):
            raise ManifestError(f"{path}: unknown key input.{not_square[0]}.", hint=NOT_SQUARE)
        for name in ("mean", "std"):
            if name in spec:
                spec[name] = tuple(float(x) for x in spec[name])
        return Manifest(
            **{k: v for k, v in table.items() if k not in ("input", "serve", "tolerance", "labels", "code")},
            labels=() if code else tuple(_list(table["labels"])),
            code=code,
            input=InputSpec("fit") if code else InputSpec(**spec),
            serve=ServeSpec(**table.get("serve", {})),
            tolerance=ToleranceSpec(**table.get("tolerance", {})),
            directory=path.parent,
            digest=f"sha256:{digest}",
        )
    except KeyError as error:
        raise ManifestError(f"{path}: the key {error.args[0]!r} is missing.", hint="See docs/models.md.") from None
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{path}: {error}.", hint="See docs/models.md for the keys of a manifest.") from None


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"labels is {value!r}, expected a list")
    return value


def _check(path: Path, manifest: Manifest) -> None:
    of_images = () if manifest.code else (*_wrong_labels(manifest), *_wrong_input(manifest.input))
    for what, hint in (
        *_wrong_texts(manifest),
        *_wrong_aliases(manifest),
        *_wrong_identity(manifest),
        *of_images,
        *_wrong_code(manifest.code),
        *_wrong_numbers("serve", manifest.serve),
        *_wrong_numbers("tolerance", manifest.tolerance, "share"),
    ):
        raise ManifestError(f"{path}: {what}.", hint=hint)


def _wrong_texts(manifest: Manifest) -> Iterator[Wrong]:
    for key in TEXTS:
        if not isinstance(getattr(manifest, key), str):
            yield f"{key} is {getattr(manifest, key)!r}", "It must be a text, in quotes."


def _wrong_labels(manifest: Manifest) -> Iterator[Wrong]:
    if not manifest.labels or not all(isinstance(label, str) and label for label in manifest.labels):
        yield "labels is empty or not all of it is text", "Give one label a class, in the order of the outputs."


def _wrong_aliases(manifest: Manifest) -> Iterator[Wrong]:
    if not isinstance(manifest.aliases, dict):
        yield f"aliases is {manifest.aliases!r}", 'It is a table: aliases = { "another name" = "label" }.'
        return
    for alias, label in manifest.aliases.items():
        if not alias or alias in manifest.labels or label not in manifest.labels:
            hint = "On the left stands a name that is no label, on the right one of the labels."
            yield f"the alias {alias!r} of {label!r} is not usable", hint


def _task_names() -> tuple[str, ...]:
    # Here and not above: the processes that decode images read no manifest, and start sooner without these types.
    from app import tasks

    return (*tasks.NAMES, *BY_SIGNATURE)


def _wrong_identity(manifest: Manifest) -> Iterator[Wrong]:
    for key in ("name", "version"):
        if not NAME_PATTERN.fullmatch(str(getattr(manifest, key))):
            yield f"{key} {getattr(manifest, key)!r} is not usable", "Lower-case letters, digits, '.', '_' and '-'."
    if (manifest.directory.parent.name, manifest.directory.name) != (manifest.name, manifest.version):
        yield f"says it is {manifest.key} but lies elsewhere", "The folder must be models/<name>/<version>."
    if manifest.task not in _task_names():
        yield f"task {manifest.task!r} is unknown", f"One of: {', '.join(_task_names())}."
    if not re.fullmatch(r"[0-9a-f]{64}", str(manifest.sha256)):
        yield "sha256 is not a SHA-256 in hexadecimal", "`sha256sum <weights>` prints it."
    for key in ("weights", "golden"):
        name = str(getattr(manifest, key))
        if name in (".", "..") or "/" in name:
            yield f"{key} {name!r} is not the name of a file", "The file must lie beside the manifest."


def _wrong_input(spec: InputSpec) -> Iterator[Wrong]:
    if spec.kind not in SIZES:
        yield f"input.kind {spec.kind!r} is unknown", f"One of: {', '.join(SIZES)}."
        return
    for key in SIZES[spec.kind]:
        if isinstance(getattr(spec, key), list | tuple):
            yield f"input.{key} is {getattr(spec, key)!r}", NOT_SQUARE
            return
        if not _is_between(getattr(spec, key), 1, MAX_SIDE_PIXELS, int):
            hint = f"input.kind = {spec.kind!r} needs it, in pixels, at most {MAX_SIDE_PIXELS}."
            yield f"input.{key} is missing or not usable", hint
            return
    if spec.kind == "crop" and spec.resize_size < spec.size:
        yield "input.resize_size is smaller than input.size", "The square must fit into the scaled image."
    if len(spec.mean) == 1 or len(spec.std) == 1:
        yield "input.mean or input.std has one number", GREY
    elif len(spec.mean) != 3 or len(spec.std) != 3 or min(spec.std) <= 0:
        yield "input.mean or input.std is not usable", "Three numbers each, those of std above 0."


def _wrong_code(code: CodeSpec | None) -> Iterator[Wrong]:
    if code is None:
        return
    yield from _wrong_numbers("code", code)
    try:
        is_known = json.loads(code.signature)["api"] == 1
    except (ValueError, TypeError, KeyError, RecursionError):
        is_known = False
    if not is_known:
        yield "code.signature is not what this release writes", "Add the model again: make model-add CODE=folder."


def _wrong_numbers(table: str, spec: ServeSpec | ToleranceSpec | CodeSpec, what: str = "number") -> Iterator[Wrong]:
    """Those beyond the bounds of their fields, see ``between``; None is right where it may be left out."""
    for each in fields(spec):
        value, low, high = getattr(spec, each.name), each.metadata.get("least"), each.metadata.get("most")
        if low is None or high is None or (value is None and each.default is None):
            continue
        if not _is_between(value, low, high, int if each.type == "int" else (int, float)):
            yield f"{table}.{each.name} is {value!r}", f"A {what} from {low} to {high}."


def _is_between(value: Any, low: int, high: int, kind: type | tuple[type, ...]) -> bool:
    return not isinstance(value, bool) and isinstance(value, kind) and bool(low <= value <= high)  # type: ignore[operator]


def task_of(directory: Path) -> Task | None:
    """The task of a manifest that cannot be read as a whole; None where not even that can be told."""
    try:
        text = files.read(directory / FILE_NAME, files.TEXT_BYTES).decode(errors="replace")
    except OSError:
        return None
    named = re.findall(r"""^\s*task\s*=\s*["'](\w+)["']""", text, re.M)
    return next((task for task in _task_names() if named == [task]), None)


def differences(first: Manifest, second: Manifest) -> str:
    """The keys by which two manifests differ, for people; ``comments or order`` where the values are the same."""
    names = [each.name for each in fields(Manifest) if each.name not in ("directory", "digest")]
    changed = [name for name in names if getattr(first, name) != getattr(second, name)]
    return f"changed: {', '.join(changed) or 'comments or order only'}"


def find(models_dir: Path, selection: Sequence[str] = ()) -> list[Manifest]:
    """The manifests that MODELS chooses, in its order; the newest version of every model when it is empty.

    ``selection`` holds ``name`` (its newest version) or ``name@version``. Raises ManifestError when one is not there
    or the store is empty.
    """
    return [read(models_dir / name / version) for name, version in choose(models_dir, selection)]


def choose(models_dir: Path, selection: Sequence[str] = ()) -> list[tuple[str, str]]:
    """As ``find``, but names and versions only; no manifest is read. Raises ManifestError."""
    there = versions(models_dir)
    if not there:
        raise ManifestError(f"{models_dir} holds no model.", hint="Add one with `make model-add`, or set MODELS_DIR.")
    wanted = selection or [f"{name}@{found[-1]}" for name, found in there.items()]
    return [_locate(models_dir, there, entry) for entry in wanted]


def version_order(version: str) -> list[tuple[int, int, str]]:
    """A key that sorts versions as people do: 2 before 10, 1.9 before 1.10, 2.0-rc1 before 2.0."""
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    return [(2, int(part), "") if part.isdigit() else (0, 0, part) for part in parts] + [(1, 0, "")]


def versions(models_dir: Path) -> dict[str, list[str]]:
    """What the store holds: name → versions, oldest first; names in alphabetical order."""
    found: dict[str, list[str]] = {}
    for path in sorted(models_dir.glob(f"*/*/{FILE_NAME}")):
        found.setdefault(path.parent.parent.name, []).append(path.parent.name)
    return {name: sorted(each, key=version_order) for name, each in found.items()}


def _locate(models_dir: Path, there: dict[str, list[str]], entry: str) -> tuple[str, str]:
    name, _, version = entry.partition("@")
    if name not in there:
        raise ManifestError(
            f"MODELS names {name!r}, which is not in {models_dir}.", hint=f"There are: {', '.join(there)}."
        )
    if version and version not in there[name]:
        raise ManifestError(
            f"MODELS names {entry!r}, but {name} has no version {version!r}.",
            hint=f"It has: {', '.join(there[name])}.",
        )
    return name, version or there[name][-1]
