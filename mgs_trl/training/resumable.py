"""ResumableTrainer: GRPOTrainer whose weights and data are the right ones after a resume and whenever they change."""

from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler


class ResumableTrainer(GRPOTrainer):
    """What transformers and TRL leave open between the steps of an uninterrupted run."""

    _order: Any = None  # of the prompts, as TRL draws it

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._order = super()._get_train_sampler(dataset)
        return self._order

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_deepspeed_enabled and self.model_wrapped is not self.model:
            raise ValueError(
                "train() was called after train() or evaluate(), but DeepSpeed cannot prepare a model a second time; "
                "make a new trainer, or set eval_on_start."
            )
        self._forget_loaded_weights()  # of an earlier call's step of the same number
        return super()._inner_training_loop(*args, **kwargs)

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> Any:
        start = super()._init_training_state(max_steps, *args, **kwargs)
        if (done := self.state.global_step) > max_steps:
            raise ValueError(
                f"the checkpoint to resume is of step {done}, but the run ends with step {max_steps}; give it more by "
                "max_steps or num_train_epochs, or resume from an earlier checkpoint."
            )
        return start

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """One epoch. A run that had finished when it was saved takes no further step; a later epoch has its own order.

        transformers looks whether to stop after a step only, and draws the first epoch's order whichever it resumes.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        resumed = kwargs["resume_from_checkpoint"] is not None and kwargs["epoch"] == kwargs["epochs_trained"]
        if resumed and isinstance(self._order, RepeatSampler) and self._order.shuffle:
            for _ in range(kwargs["epoch"]):
                torch.randperm(self._order.num_samples, generator=self._order.generator)
        super()._run_epoch(*args, **kwargs)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._forget_loaded_weights()

    def _forget_loaded_weights(self) -> None:
        """TRL gives vLLM the weights once a step; here they have changed, or may have, and the step has not."""
        self._last_loaded_step = -1
