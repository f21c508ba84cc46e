"""ZeRO-1 in bf16 with fp32 accumulation: DeepSpeed's BF16_Optimizer, where every rank has the whole fp32 gradient."""

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from mgs_trl.engines.base import Piece
from mgs_trl.engines.zero_base import ZeroEngine
from mgs_trl.engines.zero_internals import require


class Bf16Engine(ZeroEngine):
    """`BF16_Optimizer`: the reduced gradient is whole on every rank, and the optimizer's state is partitioned.

    Surgery works on the partition, so that copies cost a shard each, not a whole gradient. The norm for clipping is
    taken over the whole buffer, so the combined partitions are gathered into it: one all-gather per optimizer step.

    Args:
        accelerator, engine: see `ZeroEngine`.
        names: trainable parameters by name.
    """

    def __init__(self, accelerator: Any, engine: Any, names: dict[str, nn.Parameter]):
        super().__init__(accelerator, engine)
        require(self.optimizer, "BF16_Optimizer")
        self.shard_group = self.optimizer.real_dp_process_group[0]
        name_of = {id(parameter): name for name, parameter in names.items()}
        self._places: list[tuple[int, int, int]] = []
        for group, parameters in enumerate(self.optimizer.bf16_groups):
            for parameter in parameters:
                mapping = parameter._hp_mapping
                if mapping is not None:
                    place = mapping.get_hp_fragment_address()
                    self._places.append((group, int(place.start), int(place.numel)))
                    self._pieces.append(Piece(name_of[id(parameter)], int(place.numel)))

    def gradients(self) -> Sequence[Tensor | None]:
        partitions = self.optimizer.fp32_groups_gradient_flat_partition
        return [partitions[group].narrow(0, start, numel) for group, start, numel in self._places]

    def clear(self) -> None:
        # Not `clear_hp_grads()`, which also forgets which parameters have gradients; norm and clipping ask for that.
        for flat in self.optimizer.fp32_groups_gradients_flat:
            flat.zero_()

    def commit(self) -> None:
        optimizer = self.optimizer
        for flat, partition, group in zip(
            optimizer.fp32_groups_gradients_flat,
            optimizer.fp32_groups_gradient_flat_partition,
            optimizer.real_dp_process_group,
            strict=True,
        ):
            dist.all_gather_into_tensor(flat, partition.clone(), group=group)
