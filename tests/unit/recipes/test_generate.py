"""`python -m mgs_trl.generate`: completions and scores are those of the verifiers on what the policy wrote."""

import json
import os
from datetime import date

import pytest
from transformers import AutoTokenizer

from mgs_trl.generate import Sample, json_line, main
from mgs_trl.score import main as score
from tests.unit.recipes.conftest import make_directory

SMALL = ["miniature", "rollout=transformers", "trainer.use_cpu=true", "trainer.max_completion_length=6"]
SMALL += ["trainer.per_device_train_batch_size=12", "trainer.num_generations=2", "trainer.per_device_eval_batch_size=8"]


def test_samples_of_every_domain_with_the_scores_that_their_verifiers_give(miniature, tmp_path, capsys):
    file = tmp_path / "not" / "there" / "samples.jsonl"
    arguments = [*SMALL, f"trainer.output_dir={tmp_path}", "--samples", "3", "--prompts", "2", "--out", str(file)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    assert [sample["domain"] for sample in samples] == sorted(["chat", "instruction_following", "math"] * 6)
    for first in range(0, len(samples), 3):
        assert len({sample["prompt_text"] for sample in samples[first : first + 3]}) == 1
    assert len({sample["prompt_text"] for sample in samples}) == 6
    assert all(1 <= sample["tokens"] <= 6 for sample in samples)
    assert "Completions" in printed and "Rewards" in printed
    for sample in samples:
        assert len(sample["scores"]) == 1 and sample["reward"] == pytest.approx(sum(sample["scores"].values()))
        if sample["domain"] == "instruction_following":  # the constraint of every such row is to use no comma
            assert sample["reward"] == float("," not in sample["completion"] and bool(sample["completion"].strip()))


def test_the_prompt_is_shown_as_the_policy_read_it(tmp_path, monkeypatch, capsys):
    """With the special tokens of its template, such as `<|im_start|>`."""
    directory, file = make_directory(tmp_path / "miniature"), tmp_path / "samples.jsonl"
    monkeypatch.setenv("MGS_TRL_MINIATURE", str(directory))
    tokenizer = AutoTokenizer.from_pretrained(directory / "policy")
    tokenizer.chat_template = "{{ '<unk>' }}" + tokenizer.chat_template
    tokenizer.save_pretrained(directory / "policy")
    assert main([*SMALL, f"trainer.output_dir={tmp_path}", "--out", str(file)]) == 0
    for sample in map(json.loads, file.read_text().splitlines()):
        read = tokenizer.apply_chat_template(sample["prompt"], add_generation_prompt=True, return_dict=True)
        assert sample["prompt_text"] == tokenizer.decode(read["input_ids"])
        assert sample["prompt_text"].startswith("<unk>")


@pytest.mark.parametrize("masked", [False, True])
def test_the_lines_can_be_scored_with_the_same_rewards(miniature, tmp_path, capsys, masked):
    """Also by a reward model, which reads the conversation and not the text that the policy read; and where truncated
    completions, as nearly all are here, are not trained on."""
    file, scored = tmp_path / "samples.jsonl", tmp_path / "scored.jsonl"
    arguments = [*SMALL, f"trainer.output_dir={tmp_path}", f"+trainer.mask_truncated_completions={masked}"]
    assert main([*arguments, "--out", str(file)]) == 0
    assert all(json.loads(line)["tokens"] for line in file.read_text().splitlines())
    assert score(["miniature", str(file), "--out", str(scored)]) == 0, capsys.readouterr().err
    again = [json.loads(line) for line in scored.read_text().splitlines()]
    assert len(again) == 24 and {line["domain"] for line in again} == {"chat", "instruction_following", "math"}
    for line in again:
        assert line["scores"] == pytest.approx({**line["scores"], "reward": line["reward"]}, rel=1e-5, abs=1e-6)
    assert len({line["reward"] for line in again if line["domain"] == "chat"}) > 2


def test_a_verifier_that_raises_is_no_traceback(miniature, tmp_path, capsys):
    raising = "domains.math.verifier='tests.unit.verifiers.misbehaving:text_reward'"
    assert main([*SMALL, f"trainer.output_dir={tmp_path}", raising]) == 2
    assert "error: verifier 'math/text_reward'" in capsys.readouterr().err


def test_columns_of_the_dataset_clobber_no_field_and_need_not_be_json():
    row = {"prompt": [{"role": "user", "content": "Hi"}], "domain": "math", "answer": "2", "kwargs": None, "tokens": 9}
    sample = Sample("math", "user: Hi", "2", 1, 0.5, {"math/math": 0.5}, {**row, "day": date(2024, 2, 29)})
    assert json.loads(json_line(sample)) == {
        "prompt": row["prompt"], "prompt_text": "user: Hi", "domain": "math", "answer": "2", "completion": "2",
        "tokens": 1, "reward": 0.5, "scores": {"math/math": 0.5}, "day": "2024-02-29",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_samples(miniature, tmp_path, capsys):
    texts = []
    for name in ("one", "two"):
        file = tmp_path / name
        assert main([*SMALL, f"trainer.output_dir={tmp_path}", "--heldout", "--prompts", "1", "--out", str(file)]) == 0
        texts.append(file.read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "0"], "--samples is 0, but it must be at least 1"),
        (["--heldout", "domains.math.eval_dataset=null", "domains.chat.eval_dataset=null",
          "domains.instruction_following.eval_dataset=null"], "no domain of the recipe has an eval_dataset"),
    ],
)  # fmt: skip
def test_wrong_arguments_end_in_one_sentence(miniature, arguments, message, capsys):
    assert main([*SMALL, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_verifier_that_raises_is_named_without_a_traceback(miniature, monkeypatch, tmp_path, capsys):
    source = "async def reward(completions, **columns):\n    raise KeyError('gold')\n"
    (tmp_path / "broken_rewards.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["domains.math.verifier=broken_rewards:reward", f"trainer.output_dir={tmp_path}"]
    assert main([*SMALL, *arguments]) == 2
    assert "error: verifier 'math/reward', domain 'math', sample" in capsys.readouterr().err


def test_more_than_one_process_is_refused(miniature, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(SMALL) == 2
    assert "runs in one process" in capsys.readouterr().err


def test_one_process_is_enough_for_a_recipe_of_several(miniature, monkeypatch, capsys):
    """A recipe's tensor parallelism is for its training; one process cannot have it."""
    changes = {}

    def build(recipe, **given):
        changes.update(given)
        raise ValueError("enough seen.")

    monkeypatch.setattr("mgs_trl.build.build_trainer", build)
    assert main([*SMALL, "trainer.vllm_tensor_parallel_size=2"]) == 2
    assert changes["vllm_tensor_parallel_size"] == 1
    said = "vllm_tensor_parallel_size is 2 in the recipe; here it is 1, for one process."
    assert capsys.readouterr().err.splitlines() == [said, "error: enough seen."]


@pytest.mark.parametrize("visible, taken", [(None, "0"), ("3,1", "3"), ("GPU-a", "GPU-a"), ("", "")])
def test_one_gpu_is_enough_for_one_process(miniature, monkeypatch, visible, taken):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = []

    def build(recipe, **given):
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        raise ValueError("enough seen.")

    monkeypatch.setattr("mgs_trl.build.build_trainer", build)
    assert main(SMALL) == 2
    assert seen == [taken]
