"""Runs of experiment trackers, which would last as long as the process: each ends with the training that it shows."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgs_trl.trainer import MGSTrainer


def tracked_as(name: str | None, output: Path, part: str) -> str:
    """What trackers call one of the runs that a recipe consists of.

    Args:
        name: the recipe's `trainer.run_name`, if it has one.
        output: the recipe's directory, whose name serves otherwise.
    """
    return f"{name or output.resolve().name}-{part}"


@contextmanager
def tracked(trainer: "MGSTrainer") -> Iterator[None]:
    """Around all that a trainer does: its trackers show it as one run, which ends here and not with the process.

    Those that end their run with the training do it here too: what TRL logs of an evaluation after it would belong to
    no run, which Trackio refuses and for which MLflow makes another.
    """
    callbacks = trainer.callback_handler.callbacks
    late = [callback for callback in callbacks if isinstance(callback, _end_with_training())]
    for callback in late:
        callback.on_train_end = lambda *args, **kwargs: None
    failed = True
    try:
        yield
        failed = False
    finally:
        for callback in late:
            del callback.on_train_end
            callback.on_train_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
        if trainer.is_world_process_zero():  # transformers opens none elsewhere
            for callback in callbacks:
                _finish(callback, failed)


def open_trackers(trainer: "MGSTrainer") -> None:
    """What the beginning of a training would do, where nothing is trained before an evaluation."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, _end_with_training()):
            callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)


def _end_with_training() -> tuple[type, ...]:
    from transformers.integrations import integration_utils as known

    return known.MLflowCallback, known.TensorBoardCallback, known.TrackioCallback


def _finish(callback: Any, failed: bool) -> None:
    """End the run of a tracker that transformers leaves open."""
    from transformers.integrations import integration_utils as known

    comet: Any = sys.modules.get("comet_ml")
    if isinstance(callback, known.WandbCallback):
        sys.modules["wandb"].finish(exit_code=int(failed))
    elif isinstance(callback, known.SwanLabCallback) and sys.modules["swanlab"].get_run() is not None:
        sys.modules["swanlab"].finish()
    elif isinstance(callback, known.CometCallback) and comet is not None:
        experiment = comet.get_running_experiment()
        if experiment is not None:
            experiment.end()
