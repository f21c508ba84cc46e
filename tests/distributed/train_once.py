"""A user's script, for test_launch.py: `accelerate launch train_once.py MODEL OUT` trains two steps with surgery."""

import os
import sys
from pathlib import Path

from mgs_trl import MGSConfig, MGSTrainer
from tests.support.rollouts import ScriptedRollouts, prompts, reward


def main() -> None:
    args = MGSConfig(
        output_dir=sys.argv[2],
        per_device_train_batch_size=2,
        gradient_accumulation_steps=6,
        num_generations=4,
        max_steps=2,
        max_completion_length=12,
        ddp_backend="gloo" if os.environ.get("WORLD_SIZE", "1") != "1" else None,
        bf16=False,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = MGSTrainer(sys.argv[1], reward, args, prompts(10), rollout_func=ScriptedRollouts())
    trainer.train()
    if trainer.accelerator.is_main_process:
        summary = f"{trainer.accelerator.num_processes} {type(trainer._engine).__name__}"
        Path(sys.argv[2], "engine.txt").write_text(summary)


if __name__ == "__main__":
    main()
