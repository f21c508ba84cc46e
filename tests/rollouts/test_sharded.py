"""A colocated engine on each of two ranks that share the policy out among them: it draws with the whole policy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import build_tiny_policy

pytest.importorskip("vllm", reason="vLLM is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    sizes = {"vocab_size": 161, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    return str(build_tiny_policy(tmp_path_factory.mktemp("vllm-policy"), **sizes))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero3", "fsdp2"])
def test_every_rank_draws_its_rows_with_the_weights_of_the_step(engine, policy, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.rollouts.test_sharded", engine, policy, str(tmp_path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT, env=environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob("done-*")) == ["done-0", "done-1"]


def main(engine: str, policy: str, folder: str) -> None:
    """One rank. Weights are compared at every synchronization, an evaluation's too."""
    from tests.distributed.engines import EXPECTED, actual_engine, engine_settings, let_fsdp_run_on_cpu

    if engine == "fsdp2":
        let_fsdp_run_on_cpu()
    from mgs_trl import MGSConfig, MGSTrainer
    from tests.support.rollouts import prompts

    written = []

    def reward(completion_ids, domain, **columns):
        written.extend(zip(domain, map(tuple, completion_ids), strict=True))
        return [float(ids[0] % 7) + 0.1 * (len(ids) % 3) for ids in completion_ids]

    args = MGSConfig(
        output_dir=folder, use_vllm=True, vllm_mode="colocate", vllm_max_model_length=64, bf16=False,
        per_device_train_batch_size=4, gradient_accumulation_steps=3, num_generations=4, max_steps=3,
        learning_rate=0.02, max_completion_length=8, logging_steps=1, report_to=[], save_strategy="no",
        disable_tqdm=True, model_init_kwargs={"dtype": "float32"}, weight_check_syncs=1, eval_strategy="steps",
        eval_steps=1, eval_on_start=True, per_device_eval_batch_size=3, num_generations_eval=3,
        sampling={"chat": {"temperature": 0.7, "max_completion_length": 5}, "math": {"temperature": 1.5}},
        **engine_settings(engine, Path(folder)),
    )  # fmt: skip
    trainer = MGSTrainer(policy, reward, args, prompts(10), eval_dataset=prompts(2))
    trainer.train()
    assert actual_engine(trainer.model_wrapped) == EXPECTED[engine]
    logs = [log for log in trainer.state.log_history if "reward" in log or "eval_reward" in log]
    assert len(logs) == 3 + 4
    # Of each token: the engine's log-probability and the policy's, at the temperature of the row's domain.
    differences = [value for log in logs for name, value in log.items() if name.endswith("logp_difference/max")]
    assert len(differences) >= 3 and max(differences) < 1e-4, differences
    assert max(len(ids) for domain, ids in written if domain == "chat") == 5
    assert max(len(ids) for domain, ids in written if domain == "math") == 8
    (Path(folder) / f"done-{trainer.accelerator.process_index}").touch()


if __name__ == "__main__":
    main(*sys.argv[1:])
