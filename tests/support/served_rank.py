"""One rank of a run that loses its server after two steps: `served_rank.py POLICY URL SERVER_PID FOLDER`."""

import os
import signal
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from mgs_trl import MGSConfig, MGSTrainer
from tests.support.rollouts import prompts


def reward(completion_ids, **kwargs):
    return [float(ids[0] % 7) + 0.1 * (len(ids) % 3) for ids in completion_ids]


class Kill(TrainerCallback):
    """The server, once the second step is done."""

    def __init__(self, group: int):
        self.group = group

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2 and state.is_world_process_zero:
            os.killpg(self.group, signal.SIGKILL)


def main(policy: str, url: str, group: str, folder: str) -> None:
    rank = os.environ["RANK"]
    args = MGSConfig(
        output_dir=folder, use_vllm=True, use_cpu=True, bf16=False, per_device_train_batch_size=4,
        gradient_accumulation_steps=3, num_generations=4, max_steps=3, learning_rate=0.02, max_completion_length=24,
        logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True, weight_check_syncs=1,
        model_init_kwargs={"dtype": "float32"}, server={"urls": [url], "timeout": 3},
    )  # fmt: skip
    trainer = MGSTrainer(policy, reward, args, prompts(10), callbacks=[Kill(int(group))])
    cause = None
    try:
        trainer.train()
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
    outcome = {"step": trainer.state.global_step, "cause": cause, "parameters": trainer.model.state_dict()}
    outcome["differences"] = [
        log["sampling/sampling_logp_difference/max"] for log in trainer.state.log_history if "reward" in log
    ]
    torch.save(outcome, Path(folder) / f"rank_{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
