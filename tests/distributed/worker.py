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

from mgs_trl.engines.fsdp2 import reshard
from tests.distributed.engines import (
    EXPECTED,
    actual_engine,
    engine_settings,
    let_bf16_pass_without_gpu,
    let_fsdp_run_on_cpu,
    let_optimizers_load_on_numbered_cpus,
)

CASE: dict[str, Any] = {
    "name": None,
    "engine": "ddp",  # a key of engines.ENGINES
    "settings": {},  # MGSConfig fields
    "domains": 3,
    "prompts": 10,  # per domain
    "salts": {},  # domain -> salt of its completions
    "trainer": "MGSTrainer",  # a key of trainers.TRAINERS
    "lora": False,
    "trains_head": False,  # with lora
    "evaluates": False,  # on prompts held out, before the first step and after every step
    "held_out": None,  # how many of them; default: all that there are
    "strangers": False,  # evaluates at last on prompts most of whose domains are nowhere else
    "resume_of": None,  # kind of case whose checkpoint of step 2 is resumed
    "resume_ranks": None,  # written by that many ranks; default: as many as now
    "record": False,  # write this rank's shard of each domain's gradient at the first step
    "saves": False,  # its policy, as the training command does
    "count": False,  # write the numbers moved by collectives in the last step
}
RANKS = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
ROWS = 24  # per window, whatever the number of ranks


def whole_parameters(trainer, engine: str) -> dict[str, torch.Tensor]:
    result = {}
    reshard(trainer.model)  # an evaluation may have come last
    for name, parameter in trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False).named_parameters():
        if not parameter.requires_grad:
            continue
        if engine.startswith("zero"):
            from deepspeed.utils import safe_get_full_fp32_param

            value = safe_get_full_fp32_param(parameter)
            value = parameter.detach() if value is None else value
        elif engine.startswith("fsdp2"):
            value = parameter.full_tensor()
        else:
            value = parameter
        result[name] = value.detach().clone()
    return result


def local_bytes(model: torch.nn.Module) -> int:
    """What this rank holds of a model's parameters."""
    whole = [getattr(p, "ds_tensor", p) for p in model.parameters()]  # where ZeRO-3 keeps a parameter's shard
    held = [p.to_local() if hasattr(p, "to_local") else p for p in whole]
    return sum(p.numel() * p.element_size() for p in held)


def run(case: dict[str, Any], model: str, out: Path) -> None:
    from mgs_trl import MGSConfig
    from mgs_trl.build import save_policy
    from tests.distributed.trainers import TRAINERS, CollectiveCounter, ShardRecorder
    from tests.support.rollouts import DOMAINS, ScriptedRollouts, prompts, reward

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
        **engine_settings(case["engine"], out),
        **case["settings"],
    }
    if case["evaluates"]:
        settings |= {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
    settings.setdefault("gradient_accumulation_steps", ROWS // (RANKS * settings["per_device_train_batch_size"]))
    args = MGSConfig(**json.loads(json.dumps(settings)))  # a copy: nested configurations are filled in place
    data = prompts(case["prompts"], DOMAINS[: case["domains"]])
    # Scripted completions follow a prompt's occurrences: none of these may be in the training data.
    others = prompts(case["prompts"] + 2).filter(lambda row: row["prompt"] not in set(data["prompt"]))
    others = others.select(range(case["held_out"] or len(others)))
    salts = {row["prompt"]: case["salts"][row["domain"]] for row in data if row["domain"] in case["salts"]}
    peft = None
    if case["lora"]:
        from peft import LoraConfig

        saved = ["lm_head"] if case["trains_head"] else None
        targets = ["q_proj", "v_proj", "down_proj"]
        peft = LoraConfig(r=3, target_modules=targets, init_lora_weights=False, modules_to_save=saved)
        torch.manual_seed(1)
    trainer = TRAINERS[case["trainer"]](
        model,
        reward,
        args,
        data,
        eval_dataset=others if case["evaluates"] else None,
        rollout_func=ScriptedRollouts(prefix=salts),
        peft_config=peft,
    )
    recorder = ShardRecorder(trainer) if case["record"] else None
    counter = CollectiveCounter(trainer) if case["count"] and RANK == 0 else None
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
    if case["strangers"]:
        # Last, so that these prompts are new: two of one domain that is known, seven of others.
        trainer.evaluate(prompts(3, ("chat", "code", "law", "poetry")).select(range(1, 10)))
    parameters = whole_parameters(trainer, case["engine"])
    if recorder is not None:
        torch.save(recorder.shards, out / f"shards_{RANK}.pt")
    if trainer._collector is not None:
        kept = sum(buffer.numel() * buffer.element_size() for buffer in trainer._collector._buffers)
        (out / f"kept_{RANK}.json").write_text(json.dumps(kept))
    if trainer.ref_model is not None:
        (out / f"reference_{RANK}.json").write_text(json.dumps(local_bytes(trainer.ref_model)))
    if counter is not None:
        (out / "collectives.json").write_text(json.dumps(counter.moved))
    if case["saves"]:
        save_policy(trainer)
    if RANK == 0:
        torch.save(parameters, out / "parameters.pt")
        (out / "log.json").write_text(json.dumps(trainer.state.log_history))
    trainer.accelerator.free_memory()


def main() -> None:
    cases, model, out = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    let_fsdp_run_on_cpu()
    let_bf16_pass_without_gpu()
    let_optimizers_load_on_numbered_cpus()
    import deepspeed  # noqa: F401

    import tests.distributed.trainers  # noqa: F401

    gc.freeze()  # every case collects garbage; what was imported is not looked through again
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
