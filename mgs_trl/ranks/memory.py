"""What a rank must hold, before anything is loaded: weights, those of the reference, gradients, optimizer states, and
surgery's copies."""

from dataclasses import dataclass
from typing import Any

from mgs_trl.config import MGSConfig
from mgs_trl.ranks.layout import Layout

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes per rank. Activations, vLLM and reward models come on top.

    Attributes:
        weights, gradients, optimizer: what training holds without surgery.
        kept: the copies of domain gradients that surgery holds: T - 1, as the last domain's is overwritten in place.
        kept_on_host: whether the copies are in host memory.
        reference: weights of the model that the KL term compares the policy with; they lie where the policy's do.
    """

    layout: Layout
    weights: int
    gradients: int
    optimizer: int
    kept: int
    kept_on_host: bool
    reference: int = 0

    @property
    def device(self) -> int:
        """Bytes on the device."""
        offloaded = 0 if self.layout.offload else self.gradients + self.optimizer
        weights = 0 if self.layout.offload_weights else self.weights + self.reference
        return weights + offloaded + (0 if self.kept_on_host else self.kept)

    def line(self) -> str:
        """One line for people, in GiB."""
        place = {False: "", True: " on the host"}
        weights, host = place[self.layout.offload_weights], place[self.layout.offload]
        kept = place[self.kept_on_host]
        reference = f"{_gib(self.reference)} weights of the KL reference{weights}, " if self.reference else ""
        ranks = f" over {self.layout.ranks} ranks" if self.layout.ranks > 1 else ""
        return (
            f"{_gib(self.weights)} weights{weights}, {reference}{_gib(self.gradients)} gradients{host}, "
            f"{_gib(self.optimizer)} optimizer states{host}, {_gib(self.kept)} kept domain gradients{kept} "
            f"({self.layout.engine}{ranks}); activations, vLLM and reward models come on top"
        )


def estimate(
    parameters: int,
    domains: int,
    config: MGSConfig,
    layout: Layout,
    dtype: str = "float32",
    trained: int | None = None,
    adapter: bool = False,
) -> MemoryEstimate:
    """What one rank holds.

    Args:
        parameters: number of parameters, tied ones counted once.
        domains: domains of a window (T).
        dtype: in which the policy is loaded.
        trained: number of parameters that are trained; None for all.
        adapter: whether they are an adapter's, without which the policy is its own reference.
    """
    trained = parameters if trained is None else trained

    def share(sharded: bool, count: int = trained) -> int:
        return -(-count // layout.ranks) if sharded else count

    deepspeed_bf16 = layout.engine.startswith("zero") and config.bf16
    width = 2 if deepspeed_bf16 else BYTES[dtype]
    # In mixed precision accelerate has FSDP2 train in float32, whatever the policy was loaded in.
    trained_width = 4 if layout.engine == "fsdp2" and config.bf16 else width
    # AdamW's two moments, and under DeepSpeed the master weights that bf16 weights are rounded from.
    states = 12 if deepspeed_bf16 else 2 * trained_width
    copies = domains - 1 if domains > 1 and config.separates_domains else 0
    weights = share(layout.sharded_weights, parameters) * width
    return MemoryEstimate(
        layout,
        weights=weights + share(layout.sharded_weights) * (trained_width - width),
        gradients=share(layout.sharded_gradients) * trained_width,
        optimizer=share(layout.sharded_step) * states,
        kept=copies * share(layout.sharded_step) * BYTES[config.surgery_dtype],
        kept_on_host=config.surgery_offload or layout.offload,
        # TRL loads it as it loads the policy, and shards it under ZeRO-3 and FSDP2 alone.
        reference=weights if config.beta and not adapter else 0,
    )


def check_fits(needed: MemoryEstimate, available: int) -> None:
    """Refuse a run that cannot fit, whatever its batch (demand.md F8).

    Args:
        available: bytes of a rank's device.

    Raises:
        ValueError: with both numbers.
    """
    if needed.device > available:
        raise ValueError(
            f"a rank needs {_gib(needed.device)} before activations ({needed.line()}), but its device has "
            f"{_gib(available)}; set trainer.surgery_offload: true, shard more (ZeRO-3, FSDP2), or use more ranks."
        )


def empty_policy(name: str, **options: Any) -> tuple[Any, str]:
    """A model without memory (on torch's meta device), from its configuration alone, and the dtype of its checkpoint.

    Args:
        name: a directory or a hub id.
        options: of `AutoConfig.from_pretrained`.

    Raises:
        OSError: the configuration cannot be reached.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(name, **options)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings, trust_remote_code=options.get("trust_remote_code", False))
    return model, str(getattr(settings, "dtype", None) or torch.float32).removeprefix("torch.")


def with_adapter(model: Any, adapter: Any) -> Any:
    """An empty policy with the adapter that is trained instead of it; the policy itself without one.

    Args:
        adapter: PEFT configuration, or None.

    Raises:
        ValueError: an adapter that does not fit the model.
    """
    if adapter is None:
        return model
    import torch
    from peft import get_peft_model

    try:
        with torch.device("meta"):
            return get_peft_model(model, adapter)
    except (TypeError, ValueError) as error:
        raise ValueError(f"peft: {' '.join(str(error).split())}") from error


def count_parameters(model: Any) -> tuple[int, int]:
    """Number of parameters of a model, and of those that are trained."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(n for n, _ in counts), sum(n for n, is_trained in counts if is_trained)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:.2f} MiB"
