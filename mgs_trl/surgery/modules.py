"""Which module a parameter belongs to, and of which kind it is, read from names and module classes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

GRANULARITIES = ("global", "layer", "block", "tensor")
KINDS = ("attention", "mlp", "norm", "embedding", "head", "router", "expert", "other")
LONE_KINDS = ("embedding", "head")  # never part of a layer

# Wrappers that add a component to parameter names without being part of the model.
_WRAPPERS = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "base_layer",
    "modules_to_save",
}
# What PEFT puts between the adapted module and the adapter's tensor: `q_proj.lora_A.default.weight`.
_ADAPTER = re.compile(r"^(lora|ia3|oft|vera|hada|lokr|boft)_|adapter|prompt_encoder")

# One pattern per kind, tried in this order against a single component of the path (or its class name). The words are
# those that architectures share, not the names of any one model.
_NAME_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("router", re.compile(r"^(gate|router|shared_expert_gate|wg)$|router")),
    ("expert", re.compile(r"^experts?$|shared_experts?$|^experts_")),
    ("norm", re.compile(r"norm(alization)?\d*$|^ln(_|\d|$)|layer_?norm|^rms")),
    (
        "attention",
        re.compile(
            r"attn|attention|^(mixer|mamba|ssm|conv|temporal_block)$|lstm_layer$|^[qkvo]_proj$|^(out|qkv)_proj$"
            r"|query_key_value"
        ),
    ),
    (
        "mlp",
        re.compile(
            r"mlp|ffn|feed_?forward|^fc\d*$|^linear[12]$|^(gate|up|down|gate_up)_proj$|^dense_(h_to_4h|4h_to_h)$|^w[123]$"
        ),
    ),
    ("embedding", re.compile(r"embed|^w[tp]e$|^tok_")),
    ("head", re.compile(r"lm_head|^(head|score|classifier|output|embed_out)$|_head$")),
)
_CLASS_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("router", re.compile(r"Router|Gate$")),
    ("expert", re.compile(r"Experts?$")),
    ("norm", re.compile(r"Norm(?!ed)")),
    ("attention", re.compile(r"Attention(?!\w*Layer$)|Mixer")),  # a layer holds more than its attention
    ("mlp", re.compile(r"MLP|FeedForward|FFN|M[Oo]E$")),
    ("embedding", re.compile(r"Embedding")),
)


@dataclass(frozen=True)
class Module:
    """A set of trainable parameters among which conflicts are resolved together."""

    name: str
    kind: str
    parameters: tuple[str, ...]


def _kind_of_component(component: str, class_name: str | None) -> str | None:
    by_name = next((kind for kind, pattern in _NAME_PATTERNS if pattern.search(component.lower())), None)
    if by_name in ("router", "expert"):
        return by_name  # a shared expert's class is often the dense MLP's
    by_class = next((kind for kind, pattern in _CLASS_PATTERNS if class_name and pattern.search(class_name)), None)
    return by_class or by_name


def _path(name: str) -> list[str]:
    """Components of the adapted module's path, without wrappers, adapter parts and the tensor's own name."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    if parts[:2] == ["base_model", "model"]:  # PEFT
        parts = parts[2:]
    for i, part in enumerate(parts):
        if _ADAPTER.search(part):
            return parts[: max(i, 1)]
    return parts[:-1] or parts


def _layer_end(parts: list[str]) -> int | None:
    """Components up to and including the number of the outermost repeated layer, or None outside of layers."""
    for i, part in enumerate(parts):
        if part.isdigit():
            return i + 1
    return None


@dataclass(frozen=True)
class _Place:
    layer: str
    block: str
    kind: str


def _place(name: str, classes: Mapping[str, str], containers: set[str]) -> _Place:
    parts = _path(name)
    end = _layer_end(parts)
    first = end or 0
    layer = ".".join(parts[:end]) if end else ""
    block, kind = None, None
    for i in range(first, len(parts)):
        found = _kind_of_component(parts[i], classes.get(".".join(parts[: i + 1])))
        if found is None or (not end and found in ("attention", "mlp") and kind is not None):
            continue
        inside = kind in ("attention", "mlp", "expert")
        if kind is None or (inside and found == "norm") or (kind == "mlp" and found in ("router", "expert")):
            block, kind = parts[: i + 1], found
            if found == "expert" and i + 1 < len(parts) and parts[i + 1].isdigit():
                block = parts[: i + 2]  # experts.7: each expert is a module
    if block is None or kind is None:
        # Unknown architecture: the module that holds the tensor.
        return _Place(layer or ".".join(parts), ".".join(parts), "other")
    alone = end and len(block) == first + 1 == len(parts) and ".".join(block) not in containers
    if alone and kind in ("attention", "mlp"):
        block = [*parts[:first], kind]  # a projection that sits directly in the layer joins its siblings
    return _Place(layer or ".".join(block), ".".join(block), kind)


def module_classes(model: nn.Module) -> dict[str, str]:
    """Class name of every submodule by its path as `partition` sees it (without wrappers and PEFT's prefix)."""
    classes = {}
    for name, module in model.named_modules():
        parts = [part for part in name.split(".") if part not in _WRAPPERS]
        if parts[:2] == ["base_model", "model"]:
            parts = parts[2:]
        classes.setdefault(".".join(parts), type(module).__name__)
    return classes


def partition(
    names: Iterable[str], granularity: str = "block", classes: Mapping[str, str] | None = None
) -> list[Module]:
    """Assign every parameter to exactly one module.

    Kinds come from the words that architectures share in the path of a parameter and, where `classes` is given, from
    the classes of the modules on that path. An adapter's tensor belongs where the module it adapts belongs.

    Args:
        names: parameter names; each once (tied parameters have one name).
        granularity: `global` (one module), `layer` (a decoder layer; each module outside of layers by itself),
            `block` (within a layer: attention, MLP, each norm, router, each expert) or `tensor`.
        classes: class name by module path, from `module_classes`.

    Returns:
        Modules in the order of their first parameter. At `global` and `layer` the kind is `other` where a module
        holds parameters of several kinds.

    Raises:
        ValueError: unknown granularity, or a repeated name.
    """
    names = list(names)
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity is {granularity!r}, but it must be one of {list(GRANULARITIES)}.")
    if len(set(names)) != len(names):
        repeated = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"parameter name {repeated!r} occurs twice, but each parameter needs one name.")
    paths = {tuple(_path(name)) for name in names}
    containers = {".".join(path[:end]) for path in paths for end in range(1, len(path))}
    members: dict[str, list[str]] = {}
    kinds: dict[str, set[str]] = {}
    for name in names:
        place = _place(name, classes or {}, containers)
        key = {"global": "global", "layer": place.layer, "block": place.block, "tensor": name}[granularity]
        members.setdefault(key, []).append(name)
        kinds.setdefault(key, set()).add(place.kind)
    return [
        Module(key, next(iter(kinds[key])) if len(kinds[key]) == 1 else "other", tuple(inside))
        for key, inside in members.items()
    ]


def partition_model(model: nn.Module, granularity: str = "block") -> list[Module]:
    """`partition` of a model's trainable parameters; tied parameters count once, under their first name."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return partition(names, granularity, module_classes(model))
