"""What a check says of launches: of ZeRO-3, of policies that could not be saved, of evaluations that split groups."""

import json

import pytest

from mgs_trl import MGSConfig
from mgs_trl.layout import check_saves_whole
from mgs_trl.train import main

GATHER = "stage3_gather_16bit_weights_on_model_save"


@pytest.fixture
def config(tmp_path):
    def make(zero):
        made = MGSConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[])
        made.deepspeed = {"zero_optimization": zero}  # read as it is given; DeepSpeed itself stays out of this process
        return made

    return make


@pytest.mark.parametrize(
    ("zero", "environment"),
    [
        ({"stage": 2}, {}),
        ({"stage": 3, GATHER: True}, {}),
        ({"stage": 3, GATHER: "auto"}, {"ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"}),
    ],
)
def test_launches_that_save_a_whole_policy(config, zero, environment):
    check_saves_whole(config(zero), environment)


@pytest.mark.parametrize("zero", [{"stage": 3}, {"stage": 3, GATHER: False}, {"stage": 3, GATHER: "auto"}])
def test_zero3_must_gather_what_it_saves(config, zero):
    with pytest.raises(ValueError, match=f"{GATHER} is .*set it to true"):
        check_saves_whole(config(zero), {})


def test_accelerates_own_variables_are_read(config):
    asked = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    made = config({})
    made.deepspeed = None
    with pytest.raises(ValueError, match="zero3_save_16bit_model: true"):
        check_saves_whole(made, asked)
    check_saves_whole(made, {**asked, "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"})


def test_a_check_plans_for_zero3(miniature, tmp_path, capsys):
    """transformers would build the model in pieces, on ranks that a check does not have."""
    file = tmp_path / "zero3.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3, GATHER: True}}))
    assert main(["miniature", "--check", "rollout=transformers", f"trainer.deepspeed={file}"]) == 0
    shown = capsys.readouterr().out
    assert "memory per rank" in shown and "not known" not in shown


def test_a_check_names_evaluation_batches_that_split_groups(miniature, capsys):
    """Recipes evaluate whatever `eval_strategy` says; TRL would find out after training."""
    assert main(["miniature", "--check", "rollout=transformers", "trainer.num_generations_eval=7"]) == 2
    assert "per_device_eval_batch_size is 192" in capsys.readouterr().err
    assert main(["miniature", "--check", "rollout=transformers", "trainer.num_generations_eval=16"]) == 0
