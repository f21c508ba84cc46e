"""The cases of each spawn: everything that is trained at a world size is trained in one set of processes."""

from typing import Any

FEWER_ENGINES = ("ddp", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload", "fsdp2")
MAIN_ENGINES = ("ddp", "zero2", "zero3", "fsdp2")
COMPILED = ("ddp", "zero2", "fsdp2")
COUNTED = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
#: Where DeepSpeed itself loses a gradient that the last micro-batch does not reach.
FORGETFUL = ("zero1_overlap", "zero2_offload", "zero3_offload")
BF16 = ("zero1_bf16", "zero2_bf16", "zero3_bf16", "zero2_bf16_sums", "zero3_bf16_sums")
RESUMED = ("zero3", "fsdp2")
RESUMED_TOO = ("ddp", "zero1", "zero2", "zero1_bf16", "zero2_offload", "zero3_offload")
#: What is set for each loss. Means over the tokens of micro-batches of one row do not depend on the ranks.
LOSSES: dict[str, dict[str, Any]] = {
    "dapo": {},
    "grpo": {},
    "dr_grpo": {},
    "bnpo": {"entropy_coef": 0.1, "per_device_train_batch_size": 1},
}

#: A domain is one block on each of two ranks, so ranks may walk the domains in any order.
ONE_BLOCK = {"max_steps": 1, "per_device_train_batch_size": 4}
#: What is trained, whatever the engine.
KINDS: dict[str, dict[str, Any]] = {
    "three": {"record": True},
    "two": {"domains": 2, "settings": {"granularity": "global"}},
    "none": {"settings": {"surgery": "none", "max_steps": 2}},
    "lora": {"lora": True},
    "lone": {
        "trainer": "LoneParameter",
        "settings": {"granularity": "tensor", "ddp_find_unused_parameters": True},
    },
    "head": {"lora": True, "trains_head": True},
    "evaluated": {"evaluates": True},
    # 5 prompts held out, then 9: the last round of two ranks is filled up with the first prompt.
    "heldout": {"evaluates": True, "held_out": 5, "strangers": True, "settings": {"surgery": "none", "max_steps": 1}},
    "compiled": {"settings": {"torch_compile": True, "torch_compile_backend": "eager"}},
    "other": {"record": True, "salts": {"chat": "other"}, "settings": {"max_steps": 1}},
    "nonfinite": {"trainer": "NonFinite"},
    "twice": {"trainer": "TrainedTwice", "settings": {"max_steps": 1}},
    # 3, 9 and 12 rows: neither 2 nor 4 ranks divide 3 or 9.
    **{
        f"uneven-{loss}": {
            "settings": {
                "loss_type": loss,
                "num_generations": 3,
                "mixture": {"chat": 1, "instruction_following": 3, "math": 4},
                "beta": 0.05,
                **own,
            },
            "prompts": 20,  # none comes twice, wherever its group is generated
        }
        for loss, own in LOSSES.items()
    },
    "labels": {"record": True, "trainer": "RankLabels", "settings": ONE_BLOCK},
    "labels-other": {
        "record": True,
        "trainer": "RankLabels",
        "salts": {"chat": "other"},
        "settings": ONE_BLOCK,
    },
    "failing": {"trainer": "FailingVerifier"},
    "saved": {"settings": {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}},
    "resumed": {"settings": {"max_steps": 4}, "resume_of": "saved"},
    "moved": {"settings": {"max_steps": 4}, "resume_of": "saved", "resume_ranks": 2},
}


def case(kind: str, engine: str) -> dict[str, Any]:
    return {"name": f"{kind}-{engine}", "engine": engine, **KINDS[kind]}


def cases(*pairs: tuple[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    return [case(kind, engine) for kind, engines in pairs for engine in engines]


UNEVEN = tuple(f"uneven-{loss}" for loss in LOSSES)
ALONE = ("three", "two", "none", "lora", "heldout", "nonfinite", *UNEVEN)
ONE = cases(*((kind, ("single",)) for kind in ALONE))
#: Run by the default suite; `MORE` by the slow one, also on two ranks and without needing what `TWO` left.
TWO = cases(
    ("three", (*FEWER_ENGINES, *BF16)),
    ("two", ("zero3", "fsdp2")),
    ("none", COUNTED),
    ("lora", ("zero3",)),
    ("lone", ("ddp", *FORGETFUL)),
    ("head", ("fsdp2",)),
    ("evaluated", ("fsdp2",)),
    ("heldout", ("ddp",)),
    ("other", ("zero3", "fsdp2")),
    ("nonfinite", ("ddp", "zero2_offload", "zero3", "fsdp2")),
    *((kind, ("ddp",)) for kind in UNEVEN),
    ("twice", ("zero2",)),
    ("labels", ("ddp",)),
    ("labels-other", ("ddp",)),
    ("saved", RESUMED),
    ("resumed", RESUMED),
    ("failing", ("ddp",)),
)
for each in TWO:
    each["saves"] = each["name"] == "three-fsdp2"
    each["count"] = each["name"].startswith(("three-", "none-")) and each["engine"] in COUNTED
MORE = cases(
    ("three", ("zero1_offload", "ddp", "zero2")),
    ("two", ("ddp", "zero2")),
    ("other", ("ddp", "zero2")),
    ("evaluated", ("zero2", "zero3")),
    ("compiled", COMPILED),
    ("saved", (*RESUMED, *RESUMED_TOO)),
    ("resumed", RESUMED_TOO),
)
THREE = cases(
    ("three", ("ddp", "zero2", "zero3", "fsdp2")), ("two", ("ddp", "zero2", "zero3", "fsdp2")), ("moved", MAIN_ENGINES)
)
# Groups of 3, which 4 ranks do not split: the scripted completions of a group must come from one rank.
FOUR = cases(*((kind, ("ddp", "zero3")) for kind in UNEVEN), ("uneven-dapo", ("zero2", "fsdp2", "fsdp2_hsdp")))
