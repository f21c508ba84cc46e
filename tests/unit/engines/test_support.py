"""What surgery cannot be exact with is refused by name at start, in one sentence."""

from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType, DynamoBackend

from mgs_trl.engines.support import check_engine


def accelerator(
    kind=DistributedType.DEEPSPEED,
    config=None,
    fsdp_version=2,
    mixed_precision="no",
    parallelism=None,
    ranks=1,
    compiler="NO",
    regional=False,
):
    state = SimpleNamespace(
        deepspeed_plugin=SimpleNamespace(deepspeed_config=config or {}),
        fsdp_plugin=SimpleNamespace(fsdp_version=fsdp_version),
        parallelism_config=parallelism,
        dynamo_plugin=SimpleNamespace(backend=DynamoBackend[compiler], use_regional_compilation=regional),
    )
    return SimpleNamespace(distributed_type=kind, state=state, mixed_precision=mixed_precision, num_processes=ranks)


def zero(**options):
    return {"zero_optimization": {"stage": 3, **options}}


@pytest.mark.parametrize(
    "run, words",
    [
        ({"kind": DistributedType.FSDP, "fsdp_version": 1}, ["FSDP1", "fsdp_version to 2"]),
        ({"kind": DistributedType.MEGATRON_LM}, ["MEGATRON_LM", "use DDP"]),
        ({"kind": DistributedType.MULTI_GPU, "mixed_precision": "fp16"}, ["fp16", "bf16"]),
        ({"kind": DistributedType.FSDP, "parallelism": SimpleNamespace(tp_size=2)}, ["tp_size"]),
        ({"config": {"zero_optimization": {"stage": 0}}}, ["stage", "0", "1, 2 or 3"]),
        ({"config": {**zero(), "fp16": {"enabled": True}}}, ["fp16", "bf16"]),
        ({"config": zero(zero_quantized_gradients=True)}, ["zero_quantized_gradients", "ZeRO++"]),
        ({"config": zero(zero_hpz_partition_size=8)}, ["zero_hpz_partition_size", "hpZ"]),
        ({"config": zero(mics_shard_size=4)}, ["mics_shard_size", "MiCS"]),
        ({"config": zero(zenflow={"topk_ratio": 0.1})}, ["zenflow", "ZenFlow"]),
        ({"config": zero(offload_optimizer={"device": "nvme"})}, ["offload_optimizer", "nvme", "cpu"]),
        ({"config": {**zero(), "pipeline": {"stages": 2}}}, ["pipeline"]),
        ({"config": zero(), "compiler": "INDUCTOR"}, ["torch_compile", "ZeRO-3", "ZeRO-2"]),
        ({"config": {**zero(stage=2), "compile": {"deepcompile": True}}, "compiler": "EAGER"}, ["deepcompile"]),
        ({"compiler": "EAGER", "regional": True, "kind": DistributedType.NO}, ["use_regional_compilation"]),
        ({"config": {**zero(), "sequence_parallel_size": 2}}, ["sequence_parallel_size", "2"]),
        ({"config": {**zero(stage=2), "optimizer": {"type": "Muon"}}}, ["'Muon'", "ZeRO-2", "before surgery"]),
    ],
)
def test_refused(run, words):
    with pytest.raises(ValueError) as error:
        check_engine(accelerator(**run))
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    "run",
    [
        {"kind": DistributedType.NO},
        {"kind": DistributedType.MULTI_GPU, "mixed_precision": "bf16"},
        {"kind": DistributedType.FSDP},
        {"config": zero()},
        {"config": {"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}, "fp16": {"enabled": "auto"}}},
        {"config": zero(zero_hpz_partition_size=1, mics_shard_size=-1, zero_quantized_gradients=False)},
        {"config": zero(offload_optimizer={"device": "cpu"})},
        {"config": {**zero(), "optimizer": {"type": "Muon"}}},
        {"config": {**zero(stage=2, offload_optimizer={"device": "cpu"}), "optimizer": {"type": "Muon"}}},
        {"config": {**zero(stage=2), "optimizer": {"type": "AdamW"}}},
        {"config": {"zero_optimization": {"stage": 2}}, "compiler": "INDUCTOR"},
        {"config": {**zero(stage=2), "compile": {"deepcompile": True}}},  # compiles nothing by itself
        {"kind": DistributedType.MULTI_GPU, "compiler": "INDUCTOR"},
    ],
)
def test_allowed(run):
    check_engine(accelerator(**run))


@pytest.mark.parametrize("kind", [DistributedType.MULTI_CPU, DistributedType.NO])
def test_fsdp_that_accelerate_silently_replaces_is_refused(monkeypatch, kind):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=rf"asks for FSDP.*{kind.value}"):
        check_engine(accelerator(kind))
    check_engine(accelerator(DistributedType.FSDP))


@pytest.mark.parametrize("run", [{"kind": DistributedType.NO}, {"config": zero()}])
def test_processes_that_would_each_train_for_themselves_are_refused(monkeypatch, run):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"^2 processes were launched.*use_cpu"):
        check_engine(accelerator(**run))
    check_engine(accelerator(**run, ranks=2))
