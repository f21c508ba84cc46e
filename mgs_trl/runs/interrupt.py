"""SIGINT and SIGTERM: finish the step, save a checkpoint, stop."""

import signal
import sys
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(TrainerCallback):
    """Turns the first signal into an orderly stop on all ranks; a second one acts at once.

    Attributes:
        received: number of the signal that some rank got, None without.
        stepped: whether a step has been done.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.stepped = False
        self._previous: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.stepped = True
        number = self._agreed(args.device)
        if number:
            self.received = number
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.restore()
        name = signal.Signals(number).name
        print(f"\n{name}: finishing this step, then saving a checkpoint.", file=sys.stderr, flush=True)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _agreed(self, device: torch.device) -> int:
        """The signal that any rank got: they hear of it at different times, but must stop after the same step."""
        own = self.received or 0
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return own
        shared = torch.tensor(own, device=device)
        torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
        return int(shared.item())
