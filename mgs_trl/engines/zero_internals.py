"""What is used of DeepSpeed beyond its public functions, in one place.

DeepSpeed offers local gradients only at ZeRO-3 (`deepspeed.utils.safe_get_local_grad`), and there as a copy in bf16. So
the engines read these attributes of its optimizers. They were verified on the versions below; `require` stops a run at
its start when another version has moved one, and tests/contract/test_engine_internals.py says which.
"""

from typing import Any

VERIFIED_VERSIONS = ("0.19.8",)

#: By the class of `DeepSpeedEngine.optimizer`, which decides, not the ZeRO stage: stage 1 in bf16 is BF16_Optimizer.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "DeepSpeedZeroOptimizer": (
        "params_in_partition",  # [group] -> the parameters of which this rank holds a part, in order
        "grad_start_offset",  # [group][rank][parameter id] -> first element of that part in the parameter
        "grad_partition_insertion_offset",  # [group][rank][parameter id] -> its place in the partition
        "partition_size",  # [group]
        "real_dp_process_group",  # [group]
        "get_param_id",
        "averaged_gradients",  # [group] -> the reduced parts, after a backward at a boundary; padding is flagged
        "cpu_offload",
        "overlap_comm",
        "partition_gradients",  # whether it is ZeRO-2
        # Of ZeRO-1 with overlap_comm:
        "reduce_gradients",  # () -> reduces what its hooks have queued at a boundary
        "ipg_buckets",  # {dtype: bucket}, of `params`, tuples that end with a parameter id: what is queued
        "bit16_groups",  # [group] -> all parameters
        "params_already_reduced",  # [parameter id] -> whether
        "get_gradient_for_reduction",  # (parameter) -> what has accumulated, or None
        "reduce_ready_partitions_and_remove_grads",  # (parameter, group) -> queues it
    ),
    "DeepSpeedZeroOptimizer, offloaded": (
        "single_partition_of_fp32_groups",  # [group].grad -> the partition's reduced gradient, on the host
        "accumulated_grads_in_cpu",  # {parameter id: tensor} -> what earlier micro-batches added up to
        "norm_for_param_grads",  # {parameter id: norm} -> from which the gradient norm is taken
        "_offload_accumulated_param_ids",  # parameters that micro-batches have reached
        "_finalize_cpu_offload_gradient_accumulation",  # () -> these parameters' gradients are copied to the host
        "local_overflow",  # whether a reduced gradient was not finite
    ),
    "BF16_Optimizer": (
        "bf16_groups",  # [group] -> parameters; `_hp_mapping` of each is its part in this rank's partition
        "fp32_groups_gradients_flat",  # [group] -> the whole reduced gradient, of which the norm is taken
        "fp32_groups_gradient_flat_partition",  # [group] -> this rank's part of it
        "real_dp_process_group",
    ),
    "DeepSpeedZeroOptimizer_Stage3": (
        "_get_fp32_grad_state_partition",  # (parameter, release_swap_buffers) -> (its local reduced gradient, group)
        "grad_partitions_flat_buffer",  # where micro-batches accumulate
        "fp32_partitioned_groups_flat",  # offloaded: [group].grad -> the reduced gradient, on the host
        "offload_optimizer",
    ),
    "DeepSpeedZeroOptimizer_Stage3, offloaded": (
        "get_param_id",
        "norm_for_param_grads",  # {parameter id: norm} -> as above
        "_offload_boundary_param_ids",  # ds_id of the parameters that micro-batches have reached
        "_finalize_offload_gradient_accumulation",  # () -> these parameters' gradients are copied to the host
    ),
}


def require(optimizer: Any, section: str) -> None:
    """Check that an optimizer has the attributes of `section`.

    Raises:
        ValueError: names the attribute that is missing, and the versions that have it.
    """
    missing = [name for name in ATTRIBUTES[section] if not hasattr(optimizer, name)]
    if missing:
        import deepspeed

        raise ValueError(
            f"deepspeed {deepspeed.__version__} has no {type(optimizer).__name__}.{missing[0]}, which surgery reads; "
            f"install a version that it was verified on ({', '.join(VERIFIED_VERSIONS)})."
        )
