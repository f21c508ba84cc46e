"""Model names that are paths: what lies there, looked at before anything is loaded."""

from pathlib import Path

from mgs_trl.policies.adapter import holds_adapter


def is_local(name: str) -> bool:
    """Whether a model name is a path: hub ids have at most one slash and start with a letter or digit."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_dir()


def check_model_path(where: str, name: str) -> None:
    """Refuse a path at which no model can be.

    Args:
        where: the recipe's key that holds `name`, a path or a hub id.

    Raises:
        ValueError: there is no directory, or it holds an adapter alone.
    """
    if not is_local(name):
        return
    directory = Path(name).expanduser()
    if not directory.is_dir():
        raise ValueError(f"{where} is {name!r}, but there is no such directory.")
    if holds_adapter(directory) and not (directory / "config.json").is_file():
        raise ValueError(
            f"{where} is {name!r}, but that holds an adapter, not a whole model; merge it into its base first."
        )
