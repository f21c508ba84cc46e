"""The preflight estimate against what a rank's collector really held (invariant 7, demand.md F8)."""

import json

import pytest

from mgs_trl import MGSConfig
from mgs_trl.ranks.layout import Layout
from mgs_trl.ranks.memory import estimate
from tests.distributed.cases import BF16, FEWER_ENGINES


@pytest.mark.parametrize("engine", [*FEWER_ENGINES, *BF16])
def test_kept_gradients_are_as_large_as_foretold(two, engine, tmp_path):
    result = two[f"three-{engine}"]
    parameters = sum(value.numel() for value in result.parameters.values())
    held = max(json.loads(result.file(f"kept_{rank}.json").read_text()) for rank in range(2))
    config = MGSConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True)
    layout = Layout(engine.split("_")[0], 2, offload="offload" in engine)
    assert estimate(parameters, 3, config, layout).kept == pytest.approx(held, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero2", "zero3", "fsdp2"])
def test_the_reference_is_as_large_as_foretold(four, engine, tmp_path):
    result = four[f"uneven-dapo-{engine}"]
    parameters = sum(value.numel() for value in result.parameters.values())
    held = max(json.loads(result.file(f"reference_{rank}.json").read_text()) for rank in range(4))
    config = MGSConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, beta=0.05)
    assert estimate(parameters, 3, config, Layout(engine, 4)).reference == pytest.approx(held, rel=0.1)
