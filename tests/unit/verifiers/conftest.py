"""The verifiers that misbehave (misbehaving.py) must be importable here and in worker processes."""

import sys
from pathlib import Path

import pytest

from mgs_trl.verifiers import configure_pool, shared_pool

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def two_workers():
    """One small pool for all tests."""
    configure_pool(workers=2)
    yield
    shared_pool().close()
