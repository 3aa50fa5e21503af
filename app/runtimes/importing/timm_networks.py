"""Networks of timm: built by name, with somebody's weights, for the conversion. In a process apart only.

timm is needed here and nowhere else: what serves is OpenVINO's. Nothing is downloaded.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app import tasks
from app.errors import ModelLoadError
from app.runtimes.importing.network_wanted import RANDOM, RANDOM_SEED, Wanted

PREFIX = "timm:"
INSTALL = ".venv/bin/pip install --no-deps --require-hashes -r requirements/timm.txt"
# Names that timm would fetch from elsewhere.
_PLACES = re.compile(r"(?:timm:)?(?:hf[-_]hub:|local-dir:|https?://)(.*)", re.IGNORECASE)


def is_named(architecture: str | None) -> bool:
    """Whether ARCH names a network of timm, not a place to fetch one from."""
    return bool(architecture) and str(architecture).startswith(PREFIX) and not _PLACES.fullmatch(str(architecture))


def tasks_of_timm() -> list[str]:
    """What its networks can be asked here; the usual one first."""
    return [task.name for task in tasks.ALL if task.model_class.is_one_row]


def refuse_places(name: str) -> None:
    """Raises ModelLoadError for an architecture whose name is a place to download from."""
    place = _PLACES.fullmatch(name)
    if place is None:
        return
    own = place[1].rstrip("/").rpartition("/")[2]
    raise ModelLoadError(
        f"{name} is a place on a network or disk; nothing is fetched by name here.",
        hint=f"Download its model.safetensors, and give ARCH={PREFIX}{own} WEIGHTS=model.safetensors LABELS=…",
    )


def check(name: str, task: str, weights: str) -> None:
    """Whether a network of timm can be added at all. ``name``: as ARCH. Raises ModelLoadError."""
    refuse_places(name)
    if task not in tasks_of_timm():
        hint = f"TASK={' or TASK='.join(tasks_of_timm())}; what finds objects or pixels: FILE=… TASK={task}."
        raise ModelLoadError(f"{name} is of timm, whose networks are not for TASK={task}.", hint=hint)
    if importlib.util.find_spec("timm") is None:
        raise ModelLoadError(
            f"{name} is of timm, which is not installed here.",
            hint=f"It is needed to add the network, not to serve it: {INSTALL}. Then the same command again.",
        )
    if weights == "DEFAULT":
        raise ModelLoadError(
            f"The published weights of {name} are not downloaded.",
            hint=f"Where the Hugging Face Hub can be reached: torch.save(timm.create_model({_own(name)!r}, "
            "pretrained=True).state_dict(), 'weights.pth'); then WEIGHTS=weights.pth and LABELS=…",
        )


def check_labels(name: str, labels: tuple[str, ...]) -> None:
    """Raises ModelLoadError where there are none: how many outputs are built follows from them."""
    if not labels:
        script = (
            "import timm; i = timm.data.ImageNetInfo(); print(*map(i.index_to_description, range(1000)), sep='\\n')"
        )
        raise ModelLoadError(
            f"LABELS is missing; {name} is built with one output a label.",
            hint=f'A text file with one label a line. Those of ImageNet-1k: python -c "{script}" > labels.txt',
        )


def build(wanted: Wanted) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """The network with its weights; what its own configuration says of pictures, by fields of ``Wanted``; and notes.

    Raises ModelLoadError.
    """
    timm = _timm()
    network = _created(timm, wanted)
    usual, notes = _usual(timm.data.resolve_model_data_config(network), wanted)
    if wanted.file == RANDOM:
        return network.eval(), usual, notes
    return network.eval(), usual, (*_load(network, wanted), *notes)


def _own(name: str) -> str:
    return name.removeprefix(PREFIX)


def _timm() -> Any:
    """The package; it imports torchvision, so what that lacks here must stand first."""
    from app.runtimes import operators  # noqa: F401

    return importlib.import_module("timm")


def _created(timm: Any, wanted: Wanted) -> Any:
    import torch

    name, options = _own(wanted.architecture), dict(wanted.builder_options)
    torch.manual_seed(RANDOM_SEED)
    try:
        return timm.create_model(name, pretrained=False, num_classes=wanted.labels, exportable=True, **options)
    except Exception as error:  # noqa: BLE001 - whatever a builder raises for somebody's options
        words = (str(error).splitlines() or [type(error).__name__])[0][:200]
        near = difflib.get_close_matches(name, timm.list_models(pretrained=words.startswith("Invalid")), n=4)
        hint = f"Near it: {', '.join(near)}." if near else "timm.list_models() lists the names; OPTIONS its arguments."
        raise ModelLoadError(f"timm {timm.__version__} cannot build {name}: {words.rstrip('.')}.", hint=hint) from None


def _usual(config: Mapping[str, Any], wanted: Wanted) -> tuple[dict[str, Any], tuple[str, ...]]:
    """As timm's own transform for evaluation scales."""
    _, height, width = config["input_size"]
    side = wanted.size or int(dict(wanted.builder_options).get("img_size", width))
    if height != width:
        raise ModelLoadError(
            f"{wanted.architecture} takes pictures of {width} × {height} pixels.", hint="Give one number: --size."
        )
    usual = {
        "size": side,
        "resize_size": math.floor(side / config["crop_pct"]),
        "input_kind": "crop",
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
    }
    notes = [
        f"scaled as timm's configuration says: {side} of {usual['resize_size']} pixels, "
        f"mean {_numbers(config['mean'])}, std {_numbers(config['std'])}"
    ]
    if config["interpolation"] != "bilinear":
        notes.append(f"timm scales {config['interpolation']} for these weights; here pictures are scaled bilinear")
    if config["crop_mode"] != "center":
        notes.append(f"timm's crop mode is {config['crop_mode']!r}; here the middle is cut out")
    return usual, tuple(notes)


def _numbers(values: Any) -> str:
    return " ".join(f"{value:g}" for value in values)


def _load(network: Any, wanted: Wanted) -> tuple[str, ...]:
    from app.runtimes.importing import checkpoints, weight_files

    heads = network.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    # A vector is what stands before the labels, whose weights may be in the file.
    ignored = "|".join(rf"{re.escape(each)}\." for each in heads) if not wanted.labels else ""
    labels = tuple(f"label {number}" for number in range(wanted.labels))
    try:
        found = checkpoints.fitting(network, weight_files.read(Path(wanted.file)), wanted.file, labels, ignored)
    except ModelLoadError as error:
        raise ModelLoadError(error.message, hint=error.hint.replace("image_size", "img_size")) from None
    network.load_state_dict(found.tensors, strict=False)
    return found.notes
