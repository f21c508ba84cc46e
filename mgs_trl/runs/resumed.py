"""What a run that is resumed does otherwise than before: nothing of it is refused, so it is said."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mgs_trl.recipe import Recipe, shown_yaml

# What may change freely: what a run writes and where, and the keys that no run reads; and how long it goes on.
_FREE = re.compile(
    r"trainer\.(output_dir|run_name|project|report_to|disable_tqdm|push_to_hub"
    r"|num_completions_to_print|conflict_log_steps|(log|logging|save|hub|trackio)_\w+)|vars|study"
)
_LENGTH = re.compile(r"trainer\.(max_steps|num_train_epochs)")


def warn_of_changes(recipe: Recipe, checkpoint: str | None) -> None:
    """Name on stderr what `recipe` has otherwise than the one written beside the checkpoint, if there are both."""
    if checkpoint is None:
        return
    written = Path(checkpoint).parent / "recipe.yaml"
    keys = [key for key in _changed_since(written, recipe) if not _LENGTH.fullmatch(key)]
    if keys:
        print(f"warning: the run goes on with another {', '.join(keys)} than in {written}.", file=sys.stderr)


def warn_of_skipped(recipe: Recipe, output: Path) -> None:
    """Name on stderr what `recipe`, of a stage that has finished in `output` and is left out, has otherwise than it."""
    written = output / "recipe.yaml"
    if keys := _changed_since(written, recipe):
        print(
            f"warning: stage {output.name!r} has finished and stays as it is, with another {', '.join(keys)} in "
            f"{written}; without --resume it is trained anew.",
            file=sys.stderr,
        )


def _changed_since(written: Path, recipe: Recipe) -> list[str]:
    """The keys under which a recipe differs from the one in a file; none where there is no file."""
    if not written.is_file():
        return []
    before, now = OmegaConf.load(written), OmegaConf.create(shown_yaml(recipe))
    return changed_keys(OmegaConf.to_container(before), OmegaConf.to_container(now))


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
