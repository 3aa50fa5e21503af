"""The weights in somebody's file: which of its tensors a network needs, under whatever names wrappers gave them.

Wrappers put the network's names under prefixes in any order and depth: ``state_dict``, ``model``, ``module.`` (DDP,
AveragedModel), ``_orig_mod.`` (torch.compile), a Lightning module's attribute. So nothing is taken off by a list:
nested tables become one list of dotted names, and the prefix is taken under which all that the network needs is there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from app.errors import ModelLoadError
from app.runtimes.importing import architecture_guess

Tensors = dict[str, torch.Tensor]

# Counters that no prediction reads: older checkpoints lack BatchNorm's, profilers add theirs to every layer.
COUNTERS = ("num_batches_tracked", "total_ops", "total_params")
# Names of torch's wrappers, which stand also within a network where its parts were wrapped one by one.
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
# Averaged weights are better than the last ones.
_AVERAGED = re.compile(r"ema|averag|swa", re.IGNORECASE)
# What becomes fp32 by copying it; what is quantised means nothing without its scales.
_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MAX_DEPTH = 8
_SHOWN = 4


@dataclass(frozen=True)
class Found:
    """The tensors of a network by its own names, and what else is worth knowing about the file, in words."""

    tensors: Tensors
    notes: tuple[str, ...] = ()


def flatten(content: Any) -> Tensors:
    """All tensors of nested tables and lists by their dotted names; what is no tensor is left out."""
    return dict(_walk(content, "", 0))


def _walk(content: Any, prefix: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if not isinstance(content, Mapping | list | tuple) or depth > _MAX_DEPTH:
        return
    for name, value in content.items() if isinstance(content, Mapping) else enumerate(content):
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _walk(value, f"{prefix}{name}.", depth + 1)


def fitting(network: nn.Module, tensors: Tensors, source: str, labels: Sequence[str], ignored: str = "") -> Found:
    """What the network needs of a file's tensors. ``ignored``: names that may be in the file besides, as a pattern.

    Raises ModelLoadError that says what the file has: prefixes and shapes, the nearest architecture.
    """
    expected = network.state_dict()
    needed = [name for name in expected if not name.endswith(COUNTERS)]
    complete = [prefix for prefix in _prefixes(tensors, needed) if all(prefix + name in tensors for name in needed)]
    plain = {_WRAPPERS.sub("", name): value for name, value in tensors.items()}
    if not complete and plain.keys() != tensors.keys():
        return fitting(network, plain, source, labels, ignored)
    if not complete:
        raise _missing(network, tensors, needed, source)
    best = _best(complete)
    chosen = {name: tensors[best + name] for name in expected if best + name in tensors}
    _refuse_extra(network, tensors, best, expected, source, ignored)
    _refuse_shapes(chosen, {name: expected[name] for name in needed}, source, labels)
    _refuse_numbers(chosen, expected, source)
    return Found(chosen, tuple(_notes(tensors, best, complete)))


def _prefixes(tensors: Tensors, needed: Sequence[str]) -> list[str]:
    """Where the network might begin: whatever stands before the first or the last of its names."""
    anchors = dict.fromkeys((needed[0], needed[len(needed) // 2], needed[-1]))
    found = [
        name.removesuffix(anchor)
        for anchor in anchors
        for name in tensors
        if name == anchor or name.endswith(f".{anchor}")
    ]
    return list(dict.fromkeys(found))


def _best(prefixes: Sequence[str]) -> str:
    return min(prefixes, key=lambda prefix: (not _AVERAGED.search(prefix), prefix.count("."), prefixes.index(prefix)))


def _notes(tensors: Tensors, best: str, complete: Sequence[str]) -> Iterator[str]:
    if best:
        yield f"the network lies under {best!r} in the file"
    others = [prefix for prefix in complete if prefix != best]
    if others:
        yield f"it lies there also under {', '.join(map(repr, others[:_SHOWN]))}, which is not taken"
    outside = Counter(name.split(".")[0] for name in tensors if not name.startswith(best))
    if outside:
        yield f"left out, not of the network: {', '.join(f'{name} ({n})' for name, n in outside.most_common(_SHOWN))}"


def _refuse_extra(
    network: nn.Module, tensors: Tensors, prefix: str, expected: Mapping[str, Any], source: str, ignored: str
) -> None:
    """More layers within the network's own parts mean another network; what stands beside its parts is not of it."""
    parts = {name for name, _ in network.named_children()}
    inside = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
    extra = [
        name
        for name in inside
        if name not in expected and name.split(".")[0] in parts and not name.endswith(COUNTERS)
        if not (ignored and re.match(ignored, name))
    ]
    if extra:
        raise ModelLoadError(
            f"{source} does not fit: {extra[0]} is not part of the architecture (and {len(extra) - 1} more).",
            hint=_nearest(tensors, network) or "Is the architecture, with its options, the one that was trained?",
        )


def _refuse_shapes(chosen: Tensors, needed: Tensors, source: str, labels: Sequence[str]) -> None:
    wrong = [name for name, tensor in needed.items() if chosen[name].shape != tensor.shape]
    for name in wrong[:1]:
        has, wants = list(chosen[name].shape), list(needed[name].shape)
        hint = _shape_hint(has, wants, wrong, labels)
        raise ModelLoadError(f"{source} does not fit: {name} is {has}, {wants} is expected.", hint=hint)


def _refuse_numbers(chosen: Tensors, expected: Mapping[str, torch.Tensor], source: str) -> None:
    """Tensors that would be copied into the network as other numbers than they were trained as."""
    for name, tensor in chosen.items():
        for words, hint in _unusable(tensor, expected[name].is_floating_point()):
            raise ModelLoadError(f"{source} does not fit: {name} {words}.", hint=hint)


def _unusable(tensor: torch.Tensor, is_real: bool) -> Iterator[tuple[str, str]]:
    if tensor.is_meta:
        yield "has a shape and no numbers (device 'meta')", "Save the weights once they are loaded onto a device."
    elif tensor.layout != torch.strided:
        yield f"is stored as {tensor.layout}", "Save it dense: tensor.to_dense()."
    elif is_real and tensor.dtype not in _REAL:
        yield f"holds numbers of {tensor.dtype}", "Save them as fp32, fp16 or bf16, as before quantising."
    elif is_real and not torch.isfinite(tensor).all():
        yield "holds numbers that are NaN or infinite", "The training went wrong there; take an earlier checkpoint."


def _shape_hint(has: list[int], wants: list[int], wrong: Sequence[str], labels: Sequence[str]) -> str:
    if len(has) == len(wants) == 4 and wants[1] == 3 and has[:1] + has[2:] == wants[:1] + wants[2:]:
        return (
            f"It takes pictures of {has[1]} channel(s); only RGB is supported. A grey network becomes one for RGB by "
            "w.repeat(1, 3, 1, 1) / 3 on that tensor, with its mean and std given three times."
        )
    if "pos_embed" in wrong[0]:
        return "It was trained at another size of picture: give it with OPTIONS='--options {\"image_size\": 384}'."
    if has[1:] == wants[1:] and len(wrong) <= 4:
        first = f", beginning with {labels[0]!r}" if labels else ""
        return (
            f"The file has {has[0]} outputs there and the list of labels makes {wants[0]} ({len(labels)} labels"
            f"{first}). Give one label an output, in their order; the background counts where the model has one."
        )
    return "Is the architecture, with its options, the one that these weights were trained with?"


def _missing(network: nn.Module, tensors: Tensors, needed: Sequence[str], source: str) -> ModelLoadError:
    def count(prefix: str) -> int:
        return sum(prefix + name in tensors for name in needed)

    best = max(_prefixes(tensors, needed), key=count, default="")
    missing = [name for name in needed if best + name not in tensors]
    return ModelLoadError(
        f"{source} does not fit: {missing[0]} is missing (and {len(missing) - 1} more of {len(needed)}). "
        f"The file has {_summary(tensors)}.",
        hint=_nearest(tensors, network) or "Is the architecture, with its options, the one that was trained?",
    )


def _summary(tensors: Tensors) -> str:
    tops = Counter(name.split(".")[0] for name in tensors).most_common(_SHOWN)
    kinds = ", ".join(f"{name}.* ({count})" if count > 1 else name for name, count in tops)
    shown = ", ".join(f"{name} {list(value.shape)}" for name, value in list(tensors.items())[:2])
    return f"{len(tensors)} tensors: {kinds}; the first are {shown}"


def _nearest(tensors: Tensors, network: nn.Module) -> str:
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    name, share = architecture_guess.nearest(shapes)
    if share < architecture_guess.LEAST_SHARE:
        return ""
    return f"Nearest to it is ARCH={name}: {share:.0%} of its tensors are in the file with their shapes."
