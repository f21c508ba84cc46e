"""One spawn per world size for all tests here."""

from pathlib import Path

import pytest

from tests.distributed.cases import FOUR, MORE, ONE, THREE, TWO
from tests.distributed.launch import Result, launch


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="session")
def single(tiny_policy, folder) -> dict[str, Result]:
    """Reference: the same windows in one process."""
    return {name.removesuffix("-single"): result for name, result in launch(ONE, 1, tiny_policy, folder).items()}


@pytest.fixture(scope="session")
def two(tiny_policy, folder) -> dict[str, Result]:
    return launch(TWO, 2, tiny_policy, folder)


@pytest.fixture(scope="session")
def more(tiny_policy, folder) -> dict[str, Result]:
    """On two ranks as well."""
    return launch(MORE, 2, tiny_policy, folder)


@pytest.fixture(scope="session")
def three(more, tiny_policy, folder) -> dict[str, Result]:
    # After two ranks, whose checkpoints are resumed here.
    return launch(THREE, 3, tiny_policy, folder)


@pytest.fixture(scope="session")
def four(tiny_policy, folder) -> dict[str, Result]:
    return launch(FOUR, 4, tiny_policy, folder)


def pytest_collection_modifyitems(items):
    """The first test waits for the spawn of its world size; `launch` has its own, shorter limit."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(2400))
