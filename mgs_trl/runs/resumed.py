"""What a run that is resumed does otherwise than before: nothing of it is refused, so it is said."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mgs_trl.recipe import Recipe, shown_yaml

# What may change freely: how long a run goes on, what it writes and where; and the keys that no run reads.
_FREE = re.compile(
    r"trainer\.(max_steps|num_train_epochs|output_dir|run_name|project|report_to|disable_tqdm|push_to_hub"
    r"|num_completions_to_print|conflict_log_steps|(log|logging|save|hub|trackio)_\w+)|vars|study"
)


def warn_of_changes(recipe: Recipe, checkpoint: str | None) -> None:
    """Name on stderr what `recipe` has otherwise than the one written beside the checkpoint, if there are both."""
    if checkpoint is None or not (written := Path(checkpoint).parent / "recipe.yaml").is_file():
        return
    before, now = OmegaConf.load(written), OmegaConf.create(shown_yaml(recipe))
    keys = changed_keys(OmegaConf.to_container(before), OmegaConf.to_container(now))
    if keys:
        print(f"warning: the run goes on with another {', '.join(keys)} than in {written}.", file=sys.stderr)


def changed_keys(before: Any, now: Any, where: str = "") -> list[str]:
    """Dotted keys of two recipes, as plain data, under which they differ; an absent key is one of None.

    Credentials are to be left out of both, else each of them would count.
    """
    if _FREE.fullmatch(where):
        return []
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return [where] if before != now else []
    keys = dict.fromkeys([*before, *now])
    parts = [changed_keys(before.get(key), now.get(key), f"{where}.{key}".lstrip(".")) for key in keys]
    return [key for part in parts for key in part]
