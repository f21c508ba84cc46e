"""Whose an error is: those raised in this package speak to the user in one sentence, others need their traceback."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised in this package."""
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


@contextmanager
def refused(
    what: str, kinds: tuple[type[Exception], ...], applies: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """What transformers, TRL, PEFT or torch refuse of a recipe becomes one sentence, too.

    Args:
        what: that cannot be done.
        kinds: of errors by which they refuse.
        applies: asked when there was one.

    Raises:
        ValueError: in place of an error of `kinds` that was raised elsewhere.
    """
    try:
        yield
    except kinds as error:
        if is_ours(error) or not applies():
            raise
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(f"{what}: {reason}.") from error
