"""The engines that runs here train with: their configuration, what lets them run without a GPU, and how one is told.

Used by worker.py and by benchmarks/step_overhead.py.
"""

import gc
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule


def deepspeed_config(
    stage: int, offload: bool = False, bf16: bool = False, fp32_sums: bool = True, **options: Any
) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage, **options}
    if offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    config = {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
    if bf16:
        config["bf16"] = {"enabled": True}
    if bf16 and fp32_sums:
        config |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return config


FSDP2 = {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}}
ENGINES: dict[str, dict[str, Any]] = {
    "single": {},
    "ddp": {},
    "zero1": {"deepspeed": deepspeed_config(1)},
    "zero2": {"deepspeed": deepspeed_config(2)},
    "zero3": {"deepspeed": deepspeed_config(3)},
    "zero1_overlap": {"deepspeed": deepspeed_config(1, overlap_comm=True)},
    "zero1_offload": {"deepspeed": deepspeed_config(1, offload=True)},
    "zero2_offload": {"deepspeed": deepspeed_config(2, offload=True)},
    "zero3_offload": {"deepspeed": deepspeed_config(3, offload=True)},
    "zero1_bf16": {"deepspeed": deepspeed_config(1, bf16=True), "bf16": True},
    "zero2_bf16": {"deepspeed": deepspeed_config(2, bf16=True), "bf16": True},
    "zero3_bf16": {"deepspeed": deepspeed_config(3, bf16=True), "bf16": True},
    "zero2_bf16_sums": {"deepspeed": deepspeed_config(2, bf16=True, fp32_sums=False), "bf16": True},
    "zero3_bf16_sums": {"deepspeed": deepspeed_config(3, bf16=True, fp32_sums=False), "bf16": True},
    "fsdp2": FSDP2,
    "fsdp2_hsdp": FSDP2,  # on 4 ranks: two of shards, and each twice
}
#: Class of the wrapped model (or of the optimizer, with DeepSpeed) that a case must really have trained with.
EXPECTED = {
    "ddp": "DistributedDataParallel",
    "zero1": "DeepSpeedZeroOptimizer",
    "zero2": "DeepSpeedZeroOptimizer",
    "zero3": "DeepSpeedZeroOptimizer_Stage3",
    "zero1_overlap": "DeepSpeedZeroOptimizer",
    "zero1_offload": "DeepSpeedZeroOptimizer",
    "zero2_offload": "DeepSpeedZeroOptimizer",
    "zero3_offload": "DeepSpeedZeroOptimizer_Stage3",
    "zero1_bf16": "BF16_Optimizer",
    "zero2_bf16": "DeepSpeedZeroOptimizer",
    "zero3_bf16": "DeepSpeedZeroOptimizer_Stage3",
    "zero2_bf16_sums": "DeepSpeedZeroOptimizer",
    "zero3_bf16_sums": "DeepSpeedZeroOptimizer_Stage3",
    "fsdp2": "FSDPModule",
    "fsdp2_hsdp": "FSDPModule",
}


def let_fsdp_run_on_cpu() -> None:
    """Accelerate takes FSDP for a GPU matter and would silently give DDP here."""
    from accelerate.state import AcceleratorState, DistributedType, PartialState

    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self._mixed_precision = self._mixed_precision or "no"
            fsdp_plugin.set_mixed_precision(self._mixed_precision) if self._mixed_precision != "no" else None
            self.fsdp_plugin = fsdp_plugin
            for state in (AcceleratorState._shared_state, PartialState._shared_state):
                state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init


def let_bf16_pass_without_gpu() -> None:
    """transformers allows bf16 on a CPU only with `use_cpu`, with which accelerate disables DeepSpeed."""
    import transformers.training_args as arguments

    arguments.is_torch_bf16_gpu_available = lambda: True


def let_optimizers_load_on_numbered_cpus() -> None:
    """transformers restores DDP's optimizer to the rank's device, `cpu:1`; torch knows only `cpu`."""
    torch.serialization.register_package(
        5, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )


def forget_state() -> None:
    """Accelerate and transformers keep the engine of the last trainer in globals."""
    from accelerate.state import AcceleratorState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    for name in [name for name in os.environ if name.startswith(("ACCELERATE_USE_", "FSDP_", "PARALLELISM_CONFIG_"))]:
        del os.environ[name]
    unset_hf_deepspeed_config()
    AcceleratorState._reset_state(reset_partial_state=True)
    gc.collect()


def actual_engine(model) -> str:
    """Name of the class that says how `model`, as it was given to the training step, is distributed."""
    if isinstance(model, FSDPModule):
        return "FSDPModule"
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    if type(model).__name__ == "DeepSpeedEngine":
        return type(model.optimizer).__name__
    return type(model).__name__


def engine_settings(name: str, folder: Path) -> dict[str, Any]:
    """What a trainer's configuration must say, and accelerate's environment, to train with the engine `name`."""
    forget_state()
    settings = dict(ENGINES[name])
    if name == "fsdp2_hsdp":  # as `accelerate launch` does it
        os.environ["ACCELERATE_USE_PARALLELISM_CONFIG"] = "true"
        os.environ |= {f"PARALLELISM_CONFIG_DP_{part}_SIZE": "2" for part in ("REPLICATE", "SHARD")}
    if "deepspeed" not in settings:
        return settings | {"use_cpu": not torch.cuda.is_available()}
    # As `accelerate launch` does it: with ACCELERATE_USE_CPU there would be no DeepSpeed.
    file = folder / f"deepspeed_{os.environ.get('RANK', '0')}.json"
    file.write_text(json.dumps(settings.pop("deepspeed")))
    os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    return settings if torch.cuda.is_available() else settings | {"ddp_backend": "gloo"}
