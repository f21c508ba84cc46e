"""Bad input stops before a model loads, with one sentence that names field, value and what is allowed (D1-D4)."""

import pytest
from datasets import Dataset
from transformers.training_args import OptimizerNames

from mgs_trl import MGSConfig, MGSTrainer
from tests.support.rollouts import ScriptedRollouts, prompts, reward

CONFIG = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": [], "num_generations": 4,
          "per_device_train_batch_size": 4, "gradient_accumulation_steps": 6}  # fmt: skip


def start(dataset=None, **settings):
    # The model does not exist: loading it would raise something else than ValueError.
    return MGSTrainer("no/such-model", reward, MGSConfig(**{**CONFIG, **settings}), dataset or prompts(10))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"mixture": {"math": 1, "chat": 1}}, ["instruction_following", "share"]),
        ({"mixture": {"math": 1, "chat": 1, "instruction_following": 1, "code": 1}}, ["'code'", "chat"]),
        ({"mixture": {"math": 0, "chat": 1, "instruction_following": 1}}, ["mixture['math']", "greater than 0"]),
        ({"mixture": {"math": -1.0, "chat": 1, "instruction_following": 1}}, ["-1.0", "greater than 0"]),
        ({"mixture": {"math": "a", "chat": 1, "instruction_following": 1}}, ["'a'", "number"]),
        ({"mixture": {"math": float("nan"), "chat": 1, "instruction_following": 1}}, ["nan", "number"]),
        ({"mixture": {"math": 1, "chat": 100, "instruction_following": 100}}, ["'math'", "6 prompts", "smallest"]),
        ({"granularity": "blok"}, ["granularity", "'blok'", "Did you mean 'block'"]),
        ({"surgery": "pcgard"}, ["surgery", "'pcgard'", "Did you mean 'pcgrad'"]),
        ({"surgery_exclude": ["norms"]}, ["surgery_exclude", "'norms'", "Did you mean 'norm'"]),
        ({"balance": "both"}, ["balance", "'both'", "domain"]),
        ({"surgery_exclude": "mlp"}, ["surgery_exclude", "'mlp'", "list"]),
        ({"mixture": [1, 2]}, ["mixture", "[1, 2]", "mapping"]),
        ({"sampling": "warm"}, ["sampling", "'warm'", "mapping", "JSON"]),
        ({"surgery_top_modules": "many"}, ["surgery_top_modules", "'many'", "share"]),
        ({"domain_column": "task", "domain_weights": {"math": 3.0}}, ["domain_weights", "'task'"]),
        ({"gramian_ema": 1.0}, ["gramian_ema", "1.0", "below 1"]),
        ({"gramian_ema": "0.9"}, ["gramian_ema", "'0.9'", "a number"]),
        ({"conflict_log_steps": "5"}, ["conflict_log_steps", "'5'", "whole number"]),
        ({"conflict_log_steps": 0.5}, ["conflict_log_steps", "0.5", "whole number"]),
        ({"weight_check_syncs": -1}, ["weight_check_syncs", "-1", "0 or more"]),
        ({"surgery_top_modules": 1.5}, ["surgery_top_modules", "1.5"]),
        ({"surgery_top_modules": 0}, ["surgery_top_modules", "0"]),
        ({"surgery_dtype": "float16"}, ["surgery_dtype", "'float16'"]),
        ({"steps_per_generation": 9}, ["steps_per_generation", "9", "6"]),
        (
            {"num_generations": 16, "steps_per_generation": 12, "gradient_accumulation_steps": 3},
            ["12", "num_generations", "16"],
        ),
        ({"learning_rate": "1e-6"}, ["learning_rate is '1e-6'", "a number"]),
        ({"domain_column": "task", "mixture": {"a": 1}}, ["mixture", "'task'"]),
    ],
)  # fmt: skip
def test_one_sentence(settings, words):
    with pytest.raises(ValueError) as error:
        start(**settings)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_smallest_batch_that_serves_every_domain_is_right():
    """The size named in the message works, one prompt less does not."""
    from mgs_trl.domains import quotas

    mixture = {"a": 1.0, "b": 7.0, "c": 13.0}
    with pytest.raises(ValueError, match="smallest window") as error:
        quotas(mixture, 6)
    size = int(str(error.value).split()[-2])
    assert min(quotas(mixture, size).values()) == 1
    with pytest.raises(ValueError):
        quotas(mixture, size - 1)


@pytest.mark.parametrize(
    "weights, words",
    [({"math": 2.0}, "domain_weights is {'math': 2.0}, but one domain"), ({"chat": 1.0}, r"the domains \['chat'\]")],
)
def test_one_domain_has_no_weight(weights, words):
    with pytest.raises(ValueError, match=words):
        start(prompts(10, domains=("math",)), domain_weights=weights)
    with pytest.raises(OSError):  # as far as the model that does not exist
        start(prompts(10, domains=("math",)), domain_weights={"math": 1.0})


def test_row_without_domain_is_named():
    rows = [*prompts(10), {"prompt": "w1", "domain": None, "number": 0}]
    with pytest.raises(ValueError, match="row 30 of the data has domain None"):
        start(Dataset.from_list(rows))


def test_streamed_data_is_refused():
    with pytest.raises(ValueError, match="IterableDataset"):
        start(prompts(10).to_iterable_dataset())


def test_streamed_data_that_does_not_know_its_columns_is_refused():
    streamed = prompts(10).to_iterable_dataset().map(lambda row: row)
    assert streamed.column_names is None
    with pytest.raises(ValueError, match=r"the dataset is streamed .* has a 'domain' column"):
        start(streamed)
    with pytest.raises(ValueError, match=r"mixture is set, .* its columns are \['prompt', 'number'\]"):
        start(streamed.map(lambda row: row, remove_columns="domain"), mixture={"math": 1})


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (
            {"num_generations": 12, "gradient_accumulation_steps": 9},
            "is 8, which makes 8 completions on 1 .* multiple of num_generations .12.",
        ),
        ({"num_generations_eval": 3}, "is 8, which makes 8 completions on 1 .* multiple of num_generations_eval .3."),
        ({"per_device_eval_batch_size": 6}, "is 6, which makes 6 completions on 1 .* multiple of num_generations .4."),
    ],
)
def test_evaluation_batches_of_parts_of_groups_are_refused(settings, sentence):
    """TRL does so only where `eval_strategy` is set."""
    args = MGSConfig(**{**CONFIG, **settings, "eval_on_start": True})
    with pytest.raises(ValueError, match=f"^per_device_eval_batch_size {sentence}") as error:
        MGSTrainer("no/such-model", reward, args, prompts(10), eval_dataset=prompts(2))
    assert "\n" not in str(error.value)
    args.eval_on_start = False
    with pytest.raises(OSError):  # no evaluation, as in GRPOTrainer: as far as the model that does not exist
        MGSTrainer("no/such-model", reward, args, prompts(10), eval_dataset=prompts(2))


def test_evaluation_batches_are_those_of_all_ranks():
    ranks = type("Ranks", (MGSConfig,), {"world_size": property(lambda self: 3)})
    args = ranks(**{**CONFIG, "num_generations": 12, "per_device_train_batch_size": 12})
    args.check_evaluation_batch()  # 24 completions
    args.per_device_eval_batch_size = 6
    with pytest.raises(ValueError, match=r"is 6, which makes 18 completions on 3 rank\(s\)"):
        args.check_evaluation_batch()


def test_data_given_to_evaluate_is_checked_too(tiny_policy, tmp_path):
    args = MGSConfig(**{**CONFIG, "output_dir": str(tmp_path), "per_device_eval_batch_size": 6})
    trainer = MGSTrainer(tiny_policy, reward, args, prompts(10))
    with pytest.raises(ValueError, match="per_device_eval_batch_size is 6"):
        trainer.evaluate(prompts(3))


def test_images_are_refused():
    data = prompts(10).add_column("image", [None] * 30)
    with pytest.raises(ValueError, match="text prompts only"):
        start(data)


def test_images_in_the_parts_of_a_message_are_refused():
    said = [{"type": "text", "text": "w1"}]
    rows = [{"prompt": [{"role": "user", "content": said}], "domain": d} for d in ("chat", "math") for _ in range(6)]
    rows[7]["prompt"][0]["content"] = [{"type": "image", "text": None}, *said]
    with pytest.raises(ValueError, match=r"^row 7 of the data has a prompt with a part of type 'image', but .*text"):
        start(Dataset.from_list(rows), num_generations=2)
    del rows[7]
    with pytest.raises(OSError):  # as far as the model that does not exist
        start(Dataset.from_list(rows), num_generations=2)


LAYERWISE = [name.value for name in OptimizerNames if "layerwise" in name.value]


@pytest.mark.parametrize("optim", ["lomo", "adalomo", *LAYERWISE])
def test_optimizers_that_step_during_backward_are_refused(optim):
    assert len(LAYERWISE) == 4
    with pytest.raises(ValueError, match=f"^optim is '{optim}', which updates during backward"):
        start(optim=optim)


def test_split_batches_are_refused():
    with pytest.raises(ValueError, match=r"^accelerator_config.split_batches is True"):
        start(accelerator_config={"split_batches": True})


def test_static_graph_is_refused():
    """DDP fails in its first backward that does not reduce, with an internal assertion."""
    with pytest.raises(ValueError, match=r"^ddp_static_graph is True"):
        start(ddp_static_graph=True)


def test_fp16_is_refused():
    with pytest.raises(ValueError, match="fp16"):
        start(fp16=True)


def test_plain_config_is_refused():
    from trl import GRPOConfig

    with pytest.raises(ValueError, match="MGSConfig"):
        MGSTrainer("no/such-model", reward, GRPOConfig(**CONFIG), prompts(10))


def test_reward_function_of_wrong_length(tiny_policy, tmp_path):
    """R8: TRL's own check names the function; ours must not get in its way."""

    def short(completions, **kwargs):
        return [0.0] * (len(completions) - 1)

    args = MGSConfig(**{**CONFIG, "output_dir": str(tmp_path), "max_completion_length": 4})
    trainer = MGSTrainer(tiny_policy, short, args, prompts(10))
    with pytest.raises(ValueError, match=r"'short' returned 23 rewards, but 24"):
        trainer.train()


@pytest.mark.parametrize("heldout", [False, True])
def test_a_prompt_without_a_token_is_named(tiny_policy, tmp_path, heldout):
    rows = [dict(row) for row in prompts(10)]
    rows[14]["prompt"] = " "
    rows[14]["domain"] = "chat"
    wrong = Dataset.from_list(rows)
    args = MGSConfig(**{**CONFIG, "output_dir": str(tmp_path)})
    data, evaluated = (prompts(10), {"a": prompts(4), "b": wrong}) if heldout else (wrong, None)
    with pytest.raises(ValueError, match=r"row 14 of the data \(domain 'chat'\) has the prompt ' ', but it must have"):
        MGSTrainer(tiny_policy, reward, args, data, evaluated)
    # Whoever writes the rollouts may well write them from nothing.
    MGSTrainer(tiny_policy, reward, args, data, evaluated, rollout_func=ScriptedRollouts())
