"""Runs of our trainer and of TRL's on the same rollouts."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import trl.trainer.grpo_trainer as grpo_module
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.domains import DomainSampler, quotas
from tests.support.rollouts import ScriptedRollouts, gradients, prompts, reward


@dataclass
class Run:
    trainer: Any
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)  # what the optimizer saw, per step
    domain_gradients: list[dict[int, dict[str, torch.Tensor]]] = field(default_factory=list)  # per step, by domain

    def parameters(self) -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in self.trainer.model.named_parameters()}


class _Recorder(TrainerCallback):
    def __init__(self, run: Run):
        self.run = run

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.run.gradients.append(gradients(model))


SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 6,
    "num_generations": 4,
    "max_steps": 1,
    "logging_steps": 1,
    "report_to": [],
    "learning_rate": 1e-2,
    "max_completion_length": 12,
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "save_strategy": "no",
    "max_grad_norm": 0.0,
}


@pytest.fixture
def ours(tiny_policy, tmp_path):
    def run(
        dataset=None,
        rollouts=None,
        reward_funcs=reward,
        trainer_class=MGSTrainer,
        resume=None,
        policy=tiny_policy,
        **settings,
    ) -> Run:
        args = MGSConfig(output_dir=str(tmp_path / "ours"), **{**SETTINGS, **settings})
        dataset = prompts(10) if dataset is None else dataset
        trainer = trainer_class(policy, reward_funcs, args, dataset, rollout_func=rollouts or ScriptedRollouts())
        result = Run(trainer)
        _record_domains(result)
        trainer.add_callback(_Recorder(result))
        trainer.train(resume_from_checkpoint=resume)
        return result

    return run


def _record_domains(run: Run) -> None:
    """Copy each domain's gradient when the trainer has collected it."""
    trainer = run.trainer
    prepare = trainer._prepare_surgery

    def prepare_and_watch(model):
        first = trainer._engine is None
        prepare(model)
        if not first or trainer._collector is None:
            return
        collector = trainer._collector
        keep, resolve = collector.keep, collector.resolve

        def watched_keep(domain):
            if len(run.domain_gradients) <= trainer.state.global_step:
                run.domain_gradients.append({})
            run.domain_gradients[-1][domain] = gradients(trainer.model)
            keep(domain)

        def watched_resolve(last, *rest):
            run.domain_gradients[-1][last] = gradients(trainer.model)
            return resolve(last, *rest)

        collector.keep, collector.resolve = watched_keep, watched_resolve

    trainer._prepare_surgery = prepare_and_watch


@pytest.fixture
def reference(tiny_policy, tmp_path, monkeypatch):
    """TRL's trainer on the same windows, rows ordered by domain as ours are."""

    def run(
        dataset=None, rollouts=None, reward_funcs=reward, only_domain: str | None = None, policy=tiny_policy, **settings
    ) -> Run:
        settings = {**SETTINGS, **settings}
        args = GRPOConfig(output_dir=str(tmp_path / "trl"), shuffle_dataset=False, **settings)
        dataset = prompts(10) if dataset is None else dataset
        steps = settings["max_steps"]
        per_window = (
            settings["per_device_train_batch_size"]
            * settings["gradient_accumulation_steps"]
            // settings["num_generations"]
        )
        domains = sorted(set(dataset["domain"]))
        sampler = DomainSampler(dataset["domain"], quotas(dict.fromkeys(domains, 1.0), per_window), 1, seed=args.seed)
        rows = [row for step in range(steps) for row in sampler.window(step)]
        dataset = dataset.select(rows)
        position = iter(range(10**6))

        def order_by_domain(batch):
            window = next(position)
            labels = dataset["domain"][window * per_window : (window + 1) * per_window]
            labels = [label for label in labels for _ in range(args.num_generations)]
            order = sorted(range(len(labels)), key=lambda row: labels[row])
            if only_domain is not None:
                keep = torch.tensor([float(label == only_domain) for label in labels])
                batch["advantages"] = batch["advantages"] * keep
            return {k: v if v.dim() == 0 else v[order] for k, v in batch.items()}

        monkeypatch.setattr(grpo_module, "shuffle_sequence_dict", order_by_domain)
        trainer = GRPOTrainer(policy, reward_funcs, args, dataset, rollout_func=rollouts or ScriptedRollouts())
        result = Run(trainer)
        trainer.add_callback(_Recorder(result))
        trainer.train()
        return result

    return run
