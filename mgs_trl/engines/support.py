"""What surgery cannot be exact with is refused by name, when the trainer is made and not in the middle of a run."""

import os
from typing import Any

from accelerate.utils import DistributedType, DynamoBackend

#: Keys of DeepSpeed's `zero_optimization` that change where gradients live or what they are, and are not supported.
_ZERO_OPTIONS = {
    "zero_quantized_gradients": "ZeRO++ quantized gradients",
    "zero_hpz_partition_size": "ZeRO++ hierarchical partitioning (hpZ)",
    "mics_shard_size": "MiCS",
    "zenflow": "ZenFlow",
}
_DISTRIBUTED = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.DEEPSPEED,
    DistributedType.FSDP,
)
_USE = "use DDP, DeepSpeed ZeRO-1, 2 or 3, or FSDP2"


def check_engine(accelerator: Any) -> None:
    """Refuse engines and options that surgery does not support.

    Args:
        accelerator: the `accelerate.Accelerator` of the run.

    Raises:
        ValueError: one sentence that names the option and what to use instead.
    """
    kind = accelerator.distributed_type
    if kind not in _DISTRIBUTED:
        raise ValueError(f"the run is distributed by {kind.value}, which surgery does not support; {_USE}.")
    if kind != DistributedType.FSDP and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        # Accelerate takes FSDP for a matter of GPUs: on a CPU it would train with DDP and say nothing.
        raise ValueError(
            f"the run asks for FSDP, but accelerate would train it as {kind.value}, as it does without GPUs; "
            "run it on GPUs, or ask for DDP or DeepSpeed."
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > accelerator.num_processes:
        raise ValueError(
            f"{launched} processes were launched, but accelerate would train each for itself, as it does without GPUs; "
            "for DDP set use_cpu: true, for DeepSpeed use `accelerate launch --config_file` and ddp_backend: gloo."
        )
    parallel = getattr(accelerator.state, "parallelism_config", None)
    for name in ("tp", "cp", "sp"):
        if parallel is not None and getattr(parallel, f"{name}_size", 1) > 1:
            raise ValueError(f"parallelism_config has {name}_size > 1, which surgery does not support; {_USE}.")
    if accelerator.mixed_precision == "fp16":
        raise ValueError("mixed precision is fp16, whose loss scaling cannot be exact with surgery; use bf16.")
    if kind == DistributedType.FSDP and accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise ValueError("the run uses FSDP1, which surgery does not support; set fsdp_version to 2.")
    _check_compile(accelerator)
    if kind == DistributedType.DEEPSPEED:
        _check_deepspeed(accelerator.state.deepspeed_plugin.deepspeed_config)


def _check_compile(accelerator: Any) -> None:
    compiler = getattr(accelerator.state, "dynamo_plugin", None)
    if compiler is None or compiler.backend == DynamoBackend.NO:
        return
    if compiler.use_regional_compilation:
        raise ValueError("dynamo's use_regional_compilation is on, which surgery does not support; use torch_compile.")
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        if config.get("zero_optimization", {}).get("stage") == 3:
            raise ValueError("torch_compile is on, but backward fails under ZeRO-3 then; leave it out or use ZeRO-2.")
        if (config.get("compile") or {}).get("deepcompile"):
            # Its graphs reduce into buffers of their own.
            raise ValueError("DeepSpeed's compile.deepcompile is on, which surgery does not support; leave it out.")


def _check_deepspeed(config: dict[str, Any]) -> None:
    zero = config.get("zero_optimization", {})
    if zero.get("stage", 0) not in (1, 2, 3):
        raise ValueError(
            f"DeepSpeed's zero_optimization.stage is {zero.get('stage', 0)!r}, but surgery needs 1, 2 or 3; for plain "
            "data parallelism launch without DeepSpeed."
        )
    if config.get("fp16", {}).get("enabled") is True:
        raise ValueError("DeepSpeed's fp16 is enabled, whose loss scaling cannot be exact with surgery; use bf16.")
    for option, what in _ZERO_OPTIONS.items():
        value = zero.get(option)
        if value not in (None, False, -1, 0, 1) or value is True:
            raise ValueError(
                f"DeepSpeed's zero_optimization.{option} is {value!r} ({what}), which surgery does not support."
            )
    for option in ("offload_optimizer", "offload_param"):
        device = (zero.get(option) or {}).get("device")
        if device == "nvme":
            raise ValueError(f"DeepSpeed's {option} is on nvme, which surgery does not support; use cpu.")
        if (zero.get(option) or {}).get("super_offload"):
            raise ValueError(f"DeepSpeed's {option} uses super_offload, which surgery does not support; leave it out.")
    optimizer = str((config.get("optimizer") or {}).get("type"))
    offloaded = (zero.get("offload_optimizer") or {}).get("device") == "cpu"
    if optimizer.lower() == "muon" and zero["stage"] < 3 and not offloaded:
        raise ValueError(
            f"DeepSpeed's optimizer.type is {optimizer!r}, which ZeRO-{zero['stage']} applies to reduced gradients, "
            "before surgery; use ZeRO-3, or offload the optimizer to the host."
        )
    if config.get("managed_gradient_accumulation") is False:
        raise ValueError(
            "DeepSpeed's managed_gradient_accumulation is False, which surgery does not support; leave it out."
        )
    if config.get("pipeline", {}).get("stages", 1) not in (1, "auto", None):
        raise ValueError(f"DeepSpeed's pipeline has several stages, which surgery does not support; {_USE}.")
    for option in ("sequence_parallel_size", "expert_parallel_size"):
        if config.get(option) not in (None, 1):
            raise ValueError(f"DeepSpeed's {option} is {config[option]!r}, which surgery does not support; {_USE}.")
    if config.get("tensor_parallel", {}).get("autotp_size", 0) > 1:
        raise ValueError(f"DeepSpeed's tensor_parallel is on, which surgery does not support; {_USE}.")
