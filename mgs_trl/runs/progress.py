"""What a run prints while it trains: the trainer's bar, and one readable line per logging step.

TRL writes every metric of a step as one dictionary, some three thousand characters with three domains. Trackers
and `trainer_state.json` still get all of them.
"""

import re
from collections.abc import Mapping
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

_REWARD = re.compile(r"(?P<held_out>eval_)?domain/(?P<domain>.+)/reward")


class ProgressLine(ProgressCallback):
    """The progress bar, with a short line in place of the dictionary."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        line = progress_line(logs or {}, state.global_step)
        if not state.is_world_process_zero or line is None:
            return
        if self.training_bar is not None:
            self.training_bar.write(line)
        else:
            print(line, flush=True)


def progress_line(logs: Mapping[str, Any], step: int) -> str | None:
    """One line for what was logged at `step`; None for what needs none."""
    found = {match: float(value) for key, value in logs.items() if (match := _REWARD.fullmatch(key))}
    rewards = ", ".join(f"{match['domain']} {value:.3f}" for match, value in found.items())
    if any(match["held_out"] for match in found):
        return f"step {step}: held-out reward: {rewards}"
    parts = [f"reward: {rewards}"] if found else []  # a step that reuses rollouts has none
    if "surgery/removed" in logs:
        parts.append(f"surgery changed {float(logs['surgery/removed']):.1%}")
    if "grad_norm" in logs:
        parts.append(f"grad norm {float(logs['grad_norm']):.3g}")
    if not parts and "loss" in logs:
        parts.append(f"loss {float(logs['loss']):.3g}")
    return f"step {step}: {'; '.join(parts)}" if parts else None
