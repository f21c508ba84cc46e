"""DeepSpeed ZeRO-1, 2 and 3: which engine serves the optimizer that DeepSpeed has made, and what is refused."""

from typing import Any

from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.pipe.engine import PipelineEngine
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import nn

from mgs_trl.engines.zero_base import ZeroEngine
from mgs_trl.engines.zero_bf16 import Bf16Engine
from mgs_trl.engines.zero_partitioned import OffloadedPartitionedEngine, PartitionedEngine
from mgs_trl.engines.zero_three import Zero3Engine


def make_zero_engine(accelerator: Any, model: nn.Module, names: dict[str, nn.Parameter]) -> ZeroEngine:
    """The engine for a model that DeepSpeed prepared.

    Args:
        accelerator: that prepared it.
        model: the `DeepSpeedEngine`.
        names: trainable parameters by name.

    Raises:
        ValueError: an optimizer class that surgery was not verified on.
    """
    if isinstance(model, PipelineEngine) or not isinstance(model, DeepSpeedEngine):
        raise ValueError(f"the model is a {type(model).__name__}, but surgery with DeepSpeed needs a DeepSpeedEngine.")
    optimizer = model.optimizer
    # The exact class: subclasses (MiCS, SuperOffload, ...) keep gradients elsewhere.
    if type(optimizer) is DeepSpeedZeroOptimizer:
        offloaded = getattr(optimizer, "cpu_offload", False)
        return (OffloadedPartitionedEngine if offloaded else PartitionedEngine)(accelerator, model, names)
    if type(optimizer) is BF16_Optimizer:
        return Bf16Engine(accelerator, model, names)
    if type(optimizer) is DeepSpeedZeroOptimizer_Stage3:
        return Zero3Engine(accelerator, model, names)
    raise ValueError(
        f"DeepSpeed trains with {type(optimizer).__name__}, but surgery supports DeepSpeedZeroOptimizer (ZeRO-1 and "
        "2), BF16_Optimizer (ZeRO-1 in bf16) and DeepSpeedZeroOptimizer_Stage3 (ZeRO-3); use one of these."
    )
