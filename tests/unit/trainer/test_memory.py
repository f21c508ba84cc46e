"""Parameters kept on the host take no memory of the device."""

import json

import pytest

from mgs_trl import MGSConfig
from mgs_trl.ranks.layout import Layout, launch_layout
from mgs_trl.ranks.memory import GIB, check_fits, estimate


@pytest.fixture
def config(tmp_path):
    return MGSConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True)


def test_offloaded_parameters_are_found(config, tmp_path):
    zero = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"}
    assert launch_layout(config, 4, {**zero, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}) == Layout("zero3", 4, False, True)
    # DeepSpeed offloads parameters only where they are partitioned.
    assert launch_layout(config, 4, {**zero, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}) == Layout("zero2", 4)
    file = tmp_path / "zero.json"
    host = {"device": "cpu"}
    file.write_text(json.dumps({"zero_optimization": {"stage": 3, "offload_param": host, "offload_optimizer": host}}))
    named = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    assert launch_layout(config, 2, named) == Layout("zero3", 2, True, True)
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"}
    assert launch_layout(config, 2, fsdp) == Layout("fsdp2", 2, True, True)
    config.fsdp, config.fsdp_config = True, {"version": 2, "cpu_offload": True}
    assert launch_layout(config, 2, {}) == Layout("fsdp2", 2, True, True)
    config.fsdp_config = {"version": 2}
    assert launch_layout(config, 2, {}) == Layout("fsdp2", 2)


def test_seven_billion_on_one_device_fit_where_they_are_on_the_host(config):
    whole = estimate(7_000_000_000, 3, config, Layout("fsdp2", 1))
    with pytest.raises(ValueError, match=r"26\.08 GiB weights, 26\.08 GiB gradients"):
        check_fits(whole, 80 * GIB)
    offloaded = estimate(7_000_000_000, 3, config, Layout("fsdp2", 1, offload=True, offload_weights=True))
    assert offloaded.device == 0
    check_fits(offloaded, 80 * GIB)
    assert offloaded.line().count("on the host") == 4
    # ZeRO-3 with parameters alone on the host: gradients, moments and copies stay; 4 + 8 + 8 bytes each.
    partly = estimate(7_000_000_000, 3, config, Layout("zero3", 1, offload_weights=True))
    assert partly.device == 7_000_000_000 * 20
