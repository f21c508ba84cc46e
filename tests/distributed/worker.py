"""One process of a distributed run: trains every case of a file in turn and writes what came out.

Started by `launch.py`, once per world size. A case is a JSON object; see `CASE`.
"""

import gc
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

CASE: dict[str, Any] = {
    "name": None,
    "engine": "ddp",  # a key of ENGINES
    "settings": {},  # MGSConfig fields
    "domains": 3,
    "prompts": 10,  # per domain
    "salts": {},  # domain -> salt of its completions
    "trainer": "MGSTrainer",  # a key of trainers.TRAINERS
    "lora": False,
    "resume_of": None,  # kind of case whose checkpoint of step 2 is resumed
    "resume_ranks": None,  # written by that many ranks; default: as many as now
    "record": False,  # write this rank's shard of each domain's gradient at the first step
    "count": False,  # write the numbers moved by collectives in the last step
}
RANKS = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
ROWS = 24  # per window, whatever the number of ranks


def deepspeed_config(stage: int, offload: bool = False, bf16: bool = False) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage}
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
        config |= {
            "bf16": {"enabled": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
        }
    return config


ENGINES: dict[str, dict[str, Any]] = {
    "single": {},
    "ddp": {},
    "zero1": {"deepspeed": deepspeed_config(1)},
    "zero2": {"deepspeed": deepspeed_config(2)},
    "zero3": {"deepspeed": deepspeed_config(3)},
    "zero1_offload": {"deepspeed": deepspeed_config(1, offload=True)},
    "zero2_offload": {"deepspeed": deepspeed_config(2, offload=True)},
    "zero3_offload": {"deepspeed": deepspeed_config(3, offload=True)},
    "zero1_bf16": {"deepspeed": deepspeed_config(1, bf16=True), "bf16": True},
    "zero2_bf16": {"deepspeed": deepspeed_config(2, bf16=True), "bf16": True},
    "zero3_bf16": {"deepspeed": deepspeed_config(3, bf16=True), "bf16": True},
    "fsdp2": {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}},
}
#: Class of the wrapped model (or of the optimizer, with DeepSpeed) that a case must really have trained with.
EXPECTED = {
    "ddp": "DistributedDataParallel",
    "zero1": "DeepSpeedZeroOptimizer",
    "zero2": "DeepSpeedZeroOptimizer",
    "zero3": "DeepSpeedZeroOptimizer_Stage3",
    "zero1_offload": "DeepSpeedZeroOptimizer",
    "zero2_offload": "DeepSpeedZeroOptimizer",
    "zero3_offload": "DeepSpeedZeroOptimizer_Stage3",
    "zero1_bf16": "BF16_Optimizer",
    "zero2_bf16": "DeepSpeedZeroOptimizer",
    "zero3_bf16": "DeepSpeedZeroOptimizer_Stage3",
    "fsdp2": "FSDPModule",
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

    for name in [name for name in os.environ if name.startswith(("ACCELERATE_USE_", "FSDP_"))]:
        del os.environ[name]
    unset_hf_deepspeed_config()
    AcceleratorState._reset_state(reset_partial_state=True)
    gc.collect()


def actual_engine(model) -> str:
    """Name of the class that says how `model`, as it was given to the training step, is distributed."""
    if isinstance(model, FSDPModule):
        return "FSDPModule"
    if type(model).__name__ == "DeepSpeedEngine":
        return type(model.optimizer).__name__
    return type(model).__name__


def whole_parameters(trainer, engine: str) -> dict[str, torch.Tensor]:
    result = {}
    for name, parameter in trainer.accelerator.unwrap_model(trainer.model).named_parameters():
        if not parameter.requires_grad:
            continue
        if engine.startswith("zero"):
            from deepspeed.utils import safe_get_full_fp32_param

            value = safe_get_full_fp32_param(parameter)
            value = parameter.detach() if value is None else value
        elif engine == "fsdp2":
            value = parameter.full_tensor()
        else:
            value = parameter
        result[name] = value.detach().clone()
    return result


def run(case: dict[str, Any], model: str, out: Path) -> None:
    from mgs_trl import MGSConfig
    from tests.distributed.trainers import TRAINERS, CollectiveCounter, ShardRecorder
    from tests.support.rollouts import DOMAINS, ScriptedRollouts, prompts, reward

    forget_state()
    engine = dict(ENGINES[case["engine"]])
    if "deepspeed" in engine:
        # As `accelerate launch` does it: with ACCELERATE_USE_CPU there would be no DeepSpeed.
        file = out / f"deepspeed_{RANK}.json"
        file.write_text(json.dumps(engine.pop("deepspeed")))
        os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
        engine |= {"ddp_backend": "gloo"}
    else:
        engine["use_cpu"] = True
    settings = {
        "output_dir": str(out),
        "num_generations": 4,
        "max_steps": 3,
        "logging_steps": 1,
        "conflict_log_steps": 1,
        "report_to": [],
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "max_completion_length": 12,
        # Several micro-batches in every domain, so that accumulation is seen; 3 ranks get domains that do not divide.
        "per_device_train_batch_size": {1: 4, 2: 2, 3: 2, 4: 1}[RANKS],
        "bf16": False,
        "disable_tqdm": True,
        "save_strategy": "no",
        "max_grad_norm": 0.1,
        "gradient_checkpointing": False,
        **engine,
        **case["settings"],
    }
    settings.setdefault("gradient_accumulation_steps", ROWS // (RANKS * settings["per_device_train_batch_size"]))
    args = MGSConfig(**json.loads(json.dumps(settings)))  # a copy: nested configurations are filled in place
    data = prompts(case["prompts"], DOMAINS[: case["domains"]])
    salts = {row["prompt"]: case["salts"][row["domain"]] for row in data if row["domain"] in case["salts"]}
    peft = None
    if case["lora"]:
        from peft import LoraConfig

        peft = LoraConfig(r=3, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        torch.manual_seed(1)
    trainer = TRAINERS[case["trainer"]](
        model, reward, args, data, rollout_func=ScriptedRollouts(prefix=salts), peft_config=peft
    )
    recorder = ShardRecorder(trainer) if case["record"] else None
    counter = CollectiveCounter(trainer) if case["count"] else None
    step, trained = trainer.training_step, set()

    def watched_step(wrapped, *rest):
        trained.add(actual_engine(wrapped))
        return step(wrapped, *rest)

    trainer.training_step = watched_step
    checkpoint = None
    if case["resume_of"]:
        ranks = out.parents[1] / f"ranks_{case['resume_ranks'] or RANKS}"
        checkpoint = str(ranks / f"{case['resume_of']}-{case['engine']}" / "checkpoint-2")
    trainer.train(resume_from_checkpoint=checkpoint)
    if case["engine"] != "single":
        assert trained == {EXPECTED[case["engine"]]}, f"{case['name']}: trained with {trained}"
    parameters = whole_parameters(trainer, case["engine"])
    if recorder is not None:
        torch.save(recorder.shards, out / f"shards_{RANK}.pt")
    if trainer._collector is not None:
        kept = sum(buffer.numel() * buffer.element_size() for buffer in trainer._collector._buffers)
        (out / f"kept_{RANK}.json").write_text(json.dumps(kept))
    if RANK == 0:
        if counter is not None:
            (out / "collectives.json").write_text(json.dumps(counter.moved))
        torch.save(parameters, out / "parameters.pt")
        (out / "log.json").write_text(json.dumps(trainer.state.log_history))
    trainer.accelerator.free_memory()


def main() -> None:
    cases, model, out = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    let_fsdp_run_on_cpu()
    let_bf16_pass_without_gpu()
    let_optimizers_load_on_numbered_cpus()
    for case in cases:
        folder = out / case["name"]
        folder.mkdir(exist_ok=True, parents=True)
        try:
            run({**CASE, **case}, model, folder)
        except Exception:  # the test of this case reads it; the other cases go on
            (folder / f"error_{RANK}.txt").write_text(traceback.format_exc())
        if dist.is_initialized():
            dist.barrier()
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
