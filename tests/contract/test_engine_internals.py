"""Private names of DeepSpeed and FSDP2 that engines/ reads are where they were verified, and fail clearly if moved."""

import inspect
import re

import deepspeed
import pytest
from accelerate.utils.deepspeed import DeepSpeedEngineWrapper
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch.distributed.fsdp import FSDPModule

from mgs_trl.engines.zero_internals import ATTRIBUTES, VERIFIED_VERSIONS, require

CLASSES = {
    "DeepSpeedZeroOptimizer": DeepSpeedZeroOptimizer,
    "DeepSpeedZeroOptimizer, offloaded": DeepSpeedZeroOptimizer,
    "BF16_Optimizer": BF16_Optimizer,
    "DeepSpeedZeroOptimizer_Stage3": DeepSpeedZeroOptimizer_Stage3,
    "DeepSpeedZeroOptimizer_Stage3, offloaded": DeepSpeedZeroOptimizer_Stage3,
}


def test_installed_version_was_verified():
    assert deepspeed.__version__.split("+")[0] in VERIFIED_VERSIONS


@pytest.mark.parametrize("section", ATTRIBUTES)
def test_class_has_each_attribute(section):
    source = inspect.getsource(CLASSES[section])
    for name in ATTRIBUTES[section]:
        set_in_class = re.search(rf"self\.{name}\b[^=\n]*=[^=]", source) or f"def {name}(" in source
        assert set_in_class, f"{section}.{name} is gone from deepspeed {deepspeed.__version__}"


def test_partition_padding_is_still_flagged():
    assert "_zero_padding = True" in inspect.getsource(DeepSpeedZeroOptimizer.get_flat_partition)


def test_boundary_can_be_set_without_a_step():
    """Both calls, in this order, are what the wrapper replaces in accelerate's."""
    source = inspect.getsource(DeepSpeedEngineWrapper.backward)
    order = [
        source.index(call) for call in ("set_gradient_accumulation_boundary(", "engine.backward(", "engine.step()")
    ]
    assert order == sorted(order)
    assert callable(DeepSpeedEngine.set_gradient_accumulation_boundary)


def test_the_order_of_gathering_can_be_forgotten():
    assert "self.parameter_offload =" in inspect.getsource(DeepSpeedZeroOptimizer_Stage3)
    assert callable(DeepSpeedZeRoOffload.get_param_coordinator)
    assert {"is_invalid_trace", "_invalidate_trace"} <= set(vars(PartitionedParameterCoordinator))


def test_missing_attribute_is_named():
    with pytest.raises(ValueError, match=r"object\.params_in_partition.*0\.19\.8"):
        require(object(), "DeepSpeedZeroOptimizer")


def test_fsdp2_tells_which_modules_are_sharded_together():
    """Verified with torch 2.13."""
    state = inspect.signature(FSDPModule._get_fsdp_state, eval_str=True).return_annotation
    assert "self._modules = modules" in inspect.getsource(state.init)
