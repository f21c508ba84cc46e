"""Where the miniature lies, and building it there once."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

FORMAT = 1  # of the directory; another number is another directory
MANIFEST = "manifest.json"
SIZES = ("full", "small", "quick")


def miniature_dir(seed: int = 0, size: str = "full") -> Path:
    """The default directory: `$MGS_TRL_CACHE` or `~/.cache/mgs_trl`, then `miniature-v1-seed0` (`-small`, `-quick`)."""
    cache = Path(os.environ.get("MGS_TRL_CACHE") or Path.home() / ".cache" / "mgs_trl")
    return cache.expanduser() / f"miniature-v{FORMAT}-seed{seed}{'' if size == 'full' else f'-{size}'}"


def build_miniature(
    directory: str | Path | None = None, seed: int = 0, force: bool = False, size: str = "full"
) -> Path:
    """Build the miniature in `directory` and return the directory; at once if it is there already.

    In it: `policy/`, `reward_model/`, `data/{domain}_{train,heldout}.jsonl` and `manifest.json`, which is written last.
    The build happens in a temporary directory beside it, so an interrupted build leaves nothing half done. `size`
    is "full"; "small", a policy of half a million parameters and answers of at most 24 tokens, for studies of many
    runs; or "quick", built in seconds, with a policy that has learned little and rates that are not checked.

    Raises ValueError if `seed` is negative, `size` is no size, if `directory` holds something else, or in one of
    several processes launched together, and RuntimeError if no attempt brings every domain's success rate into range.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if size not in SIZES:
        raise ValueError(f"size is {size!r}; it must be one of {', '.join(SIZES)}")
    target = Path(directory).expanduser() if directory else miniature_dir(seed, size)
    wanted = {"format": FORMAT, "seed": seed, "size": size}
    found = read_manifest(target)
    if found is not None and not force and all(found.get(key) == value for key, value in wanted.items()):
        return target
    if found is None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"directory is {str(target)!r}, which is not empty and holds no miniature; name another")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}; build the miniature in one process, before launching"
        )
    from mgs_trl.study.miniature.construct import construct

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as workplace:
        built = Path(workplace) / "miniature"
        manifest = construct(built, seed, size)
        (built / MANIFEST).write_text(json.dumps({**wanted, **manifest}, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        built.rename(target)
    return target


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a finished miniature in `directory`, None if there is none."""
    try:
        return json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
