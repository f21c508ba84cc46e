"""How a run will lie on its ranks, from what its config and its launcher ask for."""

import argparse
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from mgs_trl.config import MGSConfig


@dataclass(frozen=True)
class Layout:
    """How parameters, gradients and optimizer states lie on the ranks.

    Attributes:
        engine: `single`, `ddp`, `zero1`, `zero2`, `zero3` or `fsdp2`.
        ranks: data-parallel ranks.
        offload: gradients and optimizer states are in host memory.
        offload_weights: so are the weights, but for the layers that are computed with.
    """

    engine: str
    ranks: int
    offload: bool = False
    offload_weights: bool = False

    @property
    def sharded_weights(self) -> bool:
        return self.engine in ("zero3", "fsdp2")

    @property
    def sharded_gradients(self) -> bool:
        return self.engine in ("zero2", "zero3", "fsdp2")

    @property
    def sharded_step(self) -> bool:
        """Whether the optimizer, and so surgery, works on a rank's shard."""
        return self.engine not in ("single", "ddp")


def launch_layout(config: MGSConfig, ranks: int, environment: Mapping[str, str] = os.environ) -> Layout:
    """The layout that the launcher and the config ask for.

    Args:
        environment: `accelerate launch` speaks through it.
    """
    zero = _zero_options(config, environment)
    if zero is not None:
        stage = _stage(zero, environment)
        optimizer, weights = (
            (zero.get(f"offload_{what}") or {}).get("device")
            or environment.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{what.upper()}_DEVICE", "none")
            for what in ("optimizer", "param")
        )
        return Layout(f"zero{stage}", ranks, optimizer == "cpu", weights == "cpu" and stage == "3")
    if config.fsdp or environment.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        options = cast(dict[str, Any], config.fsdp_config or {})
        offload = str(options.get("cpu_offload", environment.get("FSDP_OFFLOAD_PARAMS"))).lower() == "true"
        return Layout("fsdp2", ranks, offload, offload)
    return Layout("ddp" if ranks > 1 else "single", ranks)


def check_processes(command: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse `accelerate launch --cpu` with several processes: it starts one and says nothing.

    Args:
        command: the command line that started this process.

    Raises:
        ValueError: several were asked for, by the command or by the file that it names.
    """
    if not command.startswith("accelerate ") or "WORLD_SIZE" in environment:
        return
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--num_processes", "--num-processes", type=int)
    parser.add_argument("--config_file", "--config-file", type=Path)
    asked, _ = parser.parse_known_args(shlex.split(command))
    processes = asked.num_processes
    if processes is None and asked.config_file is not None:
        processes = (yaml.safe_load(asked.config_file.read_text()) or {}).get("num_processes")
    if asked.cpu and (processes or 1) > 1:
        raise ValueError(
            f"accelerate launch was asked for {processes} processes and --cpu, with which it starts one alone; "
            "leave out --cpu, and set trainer.use_cpu=true for DDP without GPUs."
        )


def check_tensor_parallel(config: MGSConfig) -> None:
    """Refuse engines in the training processes that would each need more ranks than there are, or a part of them.

    Raises:
        ValueError: `vllm_tensor_parallel_size` does not divide the number of ranks.
    """
    size, ranks = config.vllm_tensor_parallel_size, config.world_size
    if config.use_vllm and config.vllm_mode == "colocate" and (size < 1 or ranks % size):
        raise ValueError(
            f"vllm_tensor_parallel_size is {size}, but with vLLM in the training processes it must divide the number "
            f"of ranks, which is {ranks}."
        )


def check_launch(config: MGSConfig, model: Any) -> None:
    """Refuse a launch that TRL would refuse too, but after it has loaded the policy.

    Args:
        model: the policy, or its name.

    Raises:
        ValueError: as `check_tensor_parallel`, or one process for several GPUs.
    """
    check_tensor_parallel(config)
    if isinstance(model, str):
        is_split = bool(cast(dict[str, Any], config.model_init_kwargs or {}).get("device_map"))
    else:
        is_split = len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1
    if config.n_gpu > 1 and not is_split:
        raise ValueError(
            f"{config.n_gpu} GPUs are visible to a single process, but it can train on one; start one process per GPU "
            "with `accelerate launch`, or make a single GPU visible with CUDA_VISIBLE_DEVICES."
        )


def check_saves_whole(config: MGSConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a run whose policy could only be saved in the engine's own shards.

    Raises:
        ValueError: ZeRO-3 does not gather the weights when it saves.
    """
    zero = _zero_options(config, environment)
    if zero is None or _stage(zero, environment) != "3":
        return
    option, variable = "stage3_gather_16bit_weights_on_model_save", "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"
    gathers = zero.get(option, "auto")
    if gathers == "auto" or option not in zero:
        gathers = environment.get(variable, "false").lower() == "true"
    if not gathers:
        raise ValueError(
            f"DeepSpeed's zero_optimization.{option} is {zero.get(option, 'not set')!r}, so no policy could be saved; "
            "set it to true (in accelerate's configuration zero3_save_16bit_model: true)."
        )


def _zero_options(config: MGSConfig, environment: Mapping[str, str]) -> dict[str, Any] | None:
    """DeepSpeed's `zero_optimization`; None without DeepSpeed."""
    given: Any = config.deepspeed or environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if not given and environment.get("ACCELERATE_USE_DEEPSPEED", "").lower() != "true":
        return None
    if isinstance(given, str):
        given = json.loads(Path(given).read_text())
    return (given or {}).get("zero_optimization", {})


def _stage(zero: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    return str(zero.get("stage", environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")))
