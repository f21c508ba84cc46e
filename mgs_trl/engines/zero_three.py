"""ZeRO-3: every rank holds a slice of each parameter's gradient."""

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import safe_set_local_grad
from torch import Tensor, nn

from mgs_trl.engines.base import Piece
from mgs_trl.engines.zero_base import ZeroEngine
from mgs_trl.engines.zero_internals import require


class Zero3Engine(ZeroEngine):
    """`DeepSpeedZeroOptimizer_Stage3`, with or without the optimizer on the host.

    Args:
        accelerator, engine: see `ZeroEngine`.
        names: trainable parameters by name.
    """

    def __init__(self, accelerator: Any, engine: Any, names: dict[str, nn.Parameter]):
        super().__init__(accelerator, engine)
        require(self.optimizer, "DeepSpeedZeroOptimizer_Stage3")
        if self.optimizer.offload_optimizer:
            require(self.optimizer, "DeepSpeedZeroOptimizer_Stage3, offloaded")
        self._parameters: list[Any] = []
        for name, parameter in names.items():
            numel = _held_elements(parameter)
            if numel > 0:
                self._parameters.append(parameter)
                self._pieces.append(Piece(name, numel))
        self.shard_group = next(iter(names.values())).ds_process_group  # pyright: ignore[reportAttributeAccessIssue]

    def gradients(self) -> Sequence[Tensor | None]:
        if self.optimizer.offload_optimizer:
            get_accelerator().synchronize()  # pyright: ignore[reportOptionalMemberAccess]  # copies to the host are asynchronous
        return [
            self._shard(parameter).view(-1)[: piece.numel]
            for parameter, piece in zip(self._parameters, self._pieces, strict=True)
        ]

    def _shard(self, parameter: Any) -> Tensor:
        # `deepspeed.utils.safe_get_local_grad` is this, but copied to fp32 where gradients accumulate in bf16.
        return self.optimizer._get_fp32_grad_state_partition(parameter, release_swap_buffers=False)[0]

    def after_reduction(self) -> None:
        optimizer = self.optimizer
        if not optimizer.offload_optimizer:
            return
        # DeepSpeed has copied what its last micro-batch reached, and has a norm of each; the rest is copied here.
        norms = optimizer.norm_for_param_grads
        late = {p.ds_id for p in self._parameters if optimizer.get_param_id(p) not in norms}
        optimizer._offload_boundary_param_ids &= late
        optimizer._finalize_offload_gradient_accumulation()

    def clear(self) -> None:
        # In place, and all of it: a parameter that the next domain does not reach must hold zero.
        self.optimizer.grad_partitions_flat_buffer.zero_()
        if self.optimizer.offload_optimizer:
            self.optimizer._offload_boundary_param_ids.clear()
            self.optimizer.norm_for_param_grads.clear()
            for partition in self.optimizer.fp32_partitioned_groups_flat:
                partition.grad.zero_()

    def commit(self) -> None:
        if self.optimizer.offload_optimizer:
            for parameter in self._parameters:
                safe_set_local_grad(parameter, self._shard(parameter))  # refreshes the norm that DeepSpeed clips by

    def after_step(self) -> None:
        self.clear()  # DeepSpeed leaves the step's gradient where the next window's first domain would find it


def _held_elements(parameter: Any) -> int:
    """Elements of this rank's slice that are not padding."""
    slice_size = parameter.ds_tensor.numel()
    start = dist.get_rank(parameter.ds_process_group) * slice_size
    return max(0, min(slice_size, parameter.ds_numel - start))
