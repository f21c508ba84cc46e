"""Trainers that go wrong on purpose, and what watches a trainer from inside a rank."""

import math
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, TrainerCallback

from mgs_trl import MGSTrainer


class RankLabels(MGSTrainer):
    """The released code's accounting: ranks walk their domains in different orders, and each labels the reduced
    gradient by its own rows."""

    def _micro_step(self, generation_batch):
        super()._micro_step(generation_batch)
        steps = self._buffered_inputs
        position = self._step % self.args.steps_per_generation
        return steps[position if self.accelerator.process_index == 0 else len(steps) - 1 - position]


class NonFinite(MGSTrainer):
    """The domain math has an infinite loss in the second step, on the last rank only."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        last = self.accelerator.process_index == self.accelerator.num_processes - 1
        hit = last and self.state.global_step == 1 and self.mix.domains[inputs.domain] == "math"
        return loss * math.inf if hit else loss


class FailingVerifier(MGSTrainer):
    """The verifier of the last rank raises in the second generation batch."""

    def __init__(self, model, reward_funcs, *args, **kwargs):
        def verifier(completions, completion_ids, trainer_state, **columns):
            last = torch.distributed.get_rank() == torch.distributed.get_world_size() - 1
            if last and trainer_state.global_step == 1:
                raise KeyError("no such answer key")
            return reward_funcs(completions=completions, completion_ids=completion_ids, **columns)

        super().__init__(model, verifier, *args, **kwargs)


class Shifted(nn.Embedding):
    """An embedding with a weight that counts only while `on` is set."""

    on = False

    def forward(self, ids):
        return super().forward(ids) + self.shift if self.on else super().forward(ids)


class LoneParameter(MGSTrainer):
    """The policy has a parameter that no domain but math reaches, and math only before its last micro-batch."""

    def __init__(self, model, *args, **kwargs):
        model = AutoModelForCausalLM.from_pretrained(model)
        self.embedding = model.get_input_embeddings()
        self.embedding.__class__ = Shifted
        self.embedding.shift = nn.Parameter(torch.linspace(-1, 1, model.config.hidden_size))
        super().__init__(model, *args, **kwargs)

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.embedding.on = self.mix.domains[inputs.domain] == "math" and not inputs.ends_domain
        return super().compute_loss(model, inputs, *args, **kwargs)


class TrainedTwice(MGSTrainer):
    """`train` is called again."""

    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        return super().train(*args, **kwargs)


TRAINERS = {c.__name__: c for c in (MGSTrainer, RankLabels, NonFinite, FailingVerifier, LoneParameter, TrainedTwice)}


class ShardRecorder:
    """Copies this rank's pieces of each domain's gradient in the first step."""

    def __init__(self, trainer: Any):
        self.shards: dict[int, list[tuple[str, torch.Tensor]]] = {}
        prepare = trainer._prepare_surgery

        def prepare_and_watch(model):
            first = trainer._engine is None
            prepare(model)
            if first:
                self._watch(trainer)

        trainer._prepare_surgery = prepare_and_watch

    def _watch(self, trainer: Any) -> None:
        collector, engine = trainer._collector, trainer._engine
        keep, resolve = collector.keep, collector.resolve

        def record(domain: int) -> None:
            if trainer.state.global_step == 0:
                pieces = zip(engine.pieces(), engine.gradients(), strict=True)
                self.shards[domain] = [(piece.name, g.clone()) for piece, g in pieces if g is not None]

        def watched_keep(domain):
            record(domain)
            keep(domain)

        def watched_resolve(last, *rest):
            record(last)
            return resolve(last, *rest)

        collector.keep, collector.resolve = watched_keep, watched_resolve


class CollectiveCounter(TrainerCallback):
    """Numbers moved by each kind of collective in the last optimizer step, as the backend sees them: DDP's and FSDP's
    own included. The rollouts and their exchange come before the first backward and are left out by name."""

    def __init__(self, trainer: Any):
        self.moved: dict[str, list[int]] = {}
        self._profile: profile | None = None
        backward_of, last = trainer._backward_of, trainer.args.max_steps - 1

        def watched(block, ends_window):
            if trainer.state.global_step == last and self._profile is None:
                self._profile = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
                self._profile.__enter__()
            return backward_of(block, ends_window)

        trainer._backward_of = watched
        trainer.add_callback(self)

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self._profile is None or self.moved:
            return
        self._profile.__exit__(None, None, None)
        for event in self._profile.events() or ():
            if event.name.startswith("gloo:"):
                numel = sum(math.prod(shape) for shape in event.input_shapes if shape)
                self.moved.setdefault(event.name.removeprefix("gloo:"), []).append(numel)
