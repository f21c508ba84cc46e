"""ZeRO-1 and ZeRO-2: every rank holds a partition of each flattened parameter group's gradient."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.zero.utils import get_norm_dtype
from torch import Tensor, nn

from mgs_trl.engines.base import Piece
from mgs_trl.engines.zero_base import ZeroEngine, check_piece, is_finite
from mgs_trl.engines.zero_internals import require


@dataclass(frozen=True)
class _Part:
    """This rank's part of one parameter: `numel` elements at `offset` in the partition of `group`."""

    name: str
    group: int
    parameter_id: int
    offset: int
    numel: int


class PartitionedEngine(ZeroEngine):
    """`DeepSpeedZeroOptimizer` without offload: `averaged_gradients`, made at each boundary.

    With gradients accumulated in another dtype than the parameters' these are views of a persistent buffer, otherwise
    of this boundary's tensors; zeroing them in place is right for both.

    Args:
        accelerator, engine: see `ZeroEngine`.
        names: trainable parameters by name.
    """

    def __init__(self, accelerator: Any, engine: Any, names: dict[str, nn.Parameter]):
        super().__init__(accelerator, engine)
        require(self.optimizer, "DeepSpeedZeroOptimizer")
        self.shard_group = self.optimizer.real_dp_process_group[0]
        self._parts = [part for part in self._own_parts(names) if part.numel > 0]
        self._pieces = [Piece(part.name, part.numel) for part in self._parts]
        if self.optimizer.overlap_comm and not self.optimizer.partition_gradients:
            self.optimizer.reduce_gradients = partial(_reduce_all, self.optimizer, self.optimizer.reduce_gradients)

    def _own_parts(self, names: dict[str, nn.Parameter]) -> Iterator[_Part]:
        optimizer = self.optimizer
        name_of = {id(parameter): name for name, parameter in names.items()}
        for group, parameters in enumerate(optimizer.params_in_partition):
            rank = dist.get_rank(optimizer.real_dp_process_group[group])
            for parameter in parameters:
                key = optimizer.get_param_id(parameter)
                start = int(optimizer.grad_start_offset[group][rank][key])
                offset = int(optimizer.grad_partition_insertion_offset[group][rank][key])
                numel = int(min(parameter.numel() - start, optimizer.partition_size[group] - offset))
                yield _Part(name_of[id(parameter)], group, key, offset, numel)

    def gradients(self) -> Sequence[Tensor | None]:
        return [tensor for group in range(len(self.optimizer.params_in_partition)) for tensor in self._held(group)]

    def _held(self, group: int) -> Iterator[Tensor]:
        parts = [part for part in self._parts if part.group == group]
        # Padding between parameters is flagged; that behind the last one need not be.
        tensors = (t for t in self.optimizer.averaged_gradients[group] if not getattr(t, "_zero_padding", False))
        for part in parts:
            yield check_piece(part.name, next(tensor for tensor in tensors if tensor.numel() > 0), part.numel)

    def clear(self) -> None:
        for tensors in self.optimizer.averaged_gradients.values():
            for tensor in tensors or ():
                tensor.zero_()


def _reduce_all(optimizer: Any, reduce_gradients: Callable[..., None], **kwargs: Any) -> None:
    """ZeRO-1's `reduce_gradients` with `overlap_comm`, where DeepSpeed has queued what the last micro-batch reached;
    the rest that has accumulated is queued, too."""
    queued = {key for bucket in optimizer.ipg_buckets.values() for _, _, key in bucket.params}
    for group, parameters in enumerate(optimizer.bit16_groups):
        for parameter in parameters:
            key = optimizer.get_param_id(parameter)
            reduced = key in queued or optimizer.params_already_reduced[key]
            if not reduced and optimizer.get_gradient_for_reduction(parameter) is not None:
                optimizer.reduce_ready_partitions_and_remove_grads(parameter, group)
    reduce_gradients(**kwargs)


class OffloadedPartitionedEngine(PartitionedEngine):
    """`DeepSpeedZeroOptimizer` with the optimizer on the host, where the reduced gradient is copied at a boundary."""

    def __init__(self, accelerator: Any, engine: Any, names: dict[str, nn.Parameter]):
        super().__init__(accelerator, engine, names)
        require(self.optimizer, "DeepSpeedZeroOptimizer, offloaded")

    def after_reduction(self) -> None:
        # DeepSpeed has copied what its last micro-batch reached, and has a norm of each; the rest is copied here.
        optimizer = self.optimizer
        optimizer._offload_accumulated_param_ids -= optimizer.norm_for_param_grads.keys()
        optimizer._finalize_cpu_offload_gradient_accumulation()

    def gradients(self) -> Sequence[Tensor | None]:
        get_accelerator().synchronize()  # pyright: ignore[reportOptionalMemberAccess]  # copies to the host are asynchronous
        partitions = self.optimizer.single_partition_of_fp32_groups
        return [partitions[p.group].grad.view(-1).narrow(0, p.offset, p.numel) for p in self._parts]

    def clear(self) -> None:
        super().clear()
        self.optimizer._offload_accumulated_param_ids.clear()
        self.optimizer.norm_for_param_grads.clear()
        for accumulated in self.optimizer.accumulated_grads_in_cpu.values():
            accumulated.zero_()
        # A parameter that the next domain does not reach would otherwise keep this domain's gradient.
        for partition in self.optimizer.single_partition_of_fp32_groups:
            partition.grad.zero_()

    def commit(self) -> None:
        optimizer = self.optimizer
        gradients = [g for g in self.gradients() if g is not None]
        for part, gradient in zip(self._parts, gradients, strict=True):
            # From these, not from the gradient, DeepSpeed takes the norm that it logs and clips by.
            optimizer.norm_for_param_grads[part.parameter_id] = gradient.to(get_norm_dtype()).norm(2)
        if optimizer.local_overflow:
            optimizer.local_overflow = not is_finite(gradients)

    def after_step(self) -> None:
        self.clear()  # nor the next window's first domain the step's gradient, which DeepSpeed leaves there
