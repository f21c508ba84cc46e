"""The miniature's data: disjoint, the same for the same seed, and solvable as the real verifiers see it."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgs_trl.study.miniature import arithmetic, conversation, instructions
from mgs_trl.study.miniature.data import DOMAINS, MIXED, demonstrate, draw_demonstrations, draw_rows, write_rows
from mgs_trl.verifiers import build_verifier

CLEAN = dict.fromkeys(DOMAINS, 0.0)


def _text(row: dict[str, Any]) -> str:
    return row["prompt"][-1]["content"]


def _scores(spec: str, rows: list[dict[str, Any]], answers: list[str]) -> list[float | None]:
    verifier, _ = build_verifier(spec, domain=rows[0]["domain"])[0]
    columns = {key: [row[key] for row in rows] for key in rows[0] if key != "prompt"}
    completions = [[{"role": "assistant", "content": answer}] for answer in answers]
    return verifier(prompts=[row["prompt"] for row in rows], completions=completions, **columns)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_held_out_prompt_is_in_training(seed: int) -> None:
    for domain, (train, held_out) in draw_rows(seed, pool=400, held_out=100).items():
        assert len({_text(row) for row in held_out}) == len(held_out) == 100, domain
        assert len({_text(row) for row in train}) == len(train) >= 400, domain
        assert not {_text(row) for row in train} & {_text(row) for row in held_out}, domain
        assert {row["domain"] for row in train + held_out} == {domain}


def test_rows_are_the_same_in_another_process_and_differ_between_seeds(tmp_path: Any) -> None:
    write = (
        "import sys; from pathlib import Path; from mgs_trl.study.miniature.data import draw_rows, write_rows\n"
        "for domain, (train, held_out) in draw_rows(int(sys.argv[2]), 50, 20).items():\n"
        "    write_rows(Path(sys.argv[1]) / domain, train[:50] + held_out)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    for name, seed, hash_seed in (("a", "3", "1"), ("b", "4", "2")):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", write, tmp_path / name, seed], check=True, timeout=120, env=environment)
    for domain, (train, held_out) in draw_rows(3, 50, 20).items():
        write_rows(tmp_path / "c" / domain, train[:50] + held_out)
        assert (tmp_path / "a" / domain).read_bytes() == (tmp_path / "c" / domain).read_bytes()
        assert (tmp_path / "a" / domain).read_bytes() != (tmp_path / "b" / domain).read_bytes()


def test_every_gold_answer_is_right_by_sum_and_by_verifier() -> None:
    train, held_out = arithmetic.split(random.Random(0), 100)
    for row in train + held_out:
        assert sum(int(term) for term in re.findall(r"\d+", _text(row))) == int(row["answer"])
    rows, rng = held_out + train[:150], random.Random(1)
    assert set(_scores("math", rows, [arithmetic.demonstration(row, rng) for row in rows])) == {1.0}
    assert set(_scores("math", rows, [arithmetic.demonstration(row, rng, noise=1.0) for row in rows])) == {0.0}


def test_held_out_sums_and_terms_all_occur_in_training() -> None:
    """A split by a rule on the operands once hid whole classes of sums from training."""
    train, held_out = arithmetic.split(random.Random(0), 128)
    assert {row["answer"] for row in held_out} <= {row["answer"] for row in train[:1024]}


def test_every_constraint_set_can_be_kept_as_the_ifeval_verifier_sees_it() -> None:
    rows, rng = instructions.split(random.Random(0), 300, 0)[0], random.Random(1)
    assert {kind for row in rows for kind in row["instruction_id_list"]} == set(instructions.KINDS)
    first = _scores("ifeval", rows, [instructions.demonstration(row, rng) for row in rows])
    assert sum(score == 1.0 for score in first) >= 0.97 * len(rows)  # English of three words is not always seen as such
    for row in (row for row, score in zip(rows, first, strict=True) if score != 1.0):
        again = [instructions.demonstration(row, rng) for _ in range(10)]
        assert 1.0 in _scores("ifeval", [row] * 10, again), row


def test_a_forgotten_constraint_costs_reward() -> None:
    rows, rng = instructions.split(random.Random(0), 200, 0)[0], random.Random(1)
    scores = _scores("ifeval", rows, [instructions.demonstration(row, rng, noise=1.0) for row in rows])
    assert sum(score or 0.0 for score in scores) / len(rows) < 0.5


@given(seed=st.integers(0, 10_000))
def test_number_of_words_and_bullets_are_what_was_asked(seed: int) -> None:
    """Counted here without the verifier's code."""
    rng = random.Random(seed)
    row = instructions.draw_row(rng)
    text = instructions.demonstration(row, rng)
    for kind, asked in zip(row["instruction_id_list"], row["kwargs"], strict=True):
        if kind == "length_constraints:number_words":
            count = len(re.findall(r"\w+", text))
            assert count < asked["num_words"] if asked["relation"] == "less than" else count >= asked["num_words"]
        if kind == "detectable_format:number_bullet_lists":
            assert [line[:2] for line in text.split("\n")] == ["* "] * asked["num_bullets"]
        if kind == "punctuation:no_comma":
            assert "," not in text
        if kind == "startend:end_checker":
            assert text.rstrip('"').lower().endswith(asked["end_phrase"])


def test_the_hidden_taste_puts_whole_answers_above_spoilt_ones() -> None:
    rng = random.Random(0)
    for _ in range(200):
        row = conversation.row(rng.choice(conversation.PROMPTS))
        topic = conversation.topic_of(row)
        full = f"The golden {topic} sings over the silver sky, and the gentle light dances with the endless night!"
        words = full.split()
        best = conversation.quality(row, full)
        assert best > conversation.quality(row, " ".join(rng.sample(words, len(words))))
        assert best > conversation.quality(row, " ".join(words[:4]))
        assert best > conversation.quality(row, " ".join(words[:4] * 4))
        assert best > conversation.quality(row, full.lower())
        assert best > conversation.quality(row, "\\boxed{12}")


def test_demonstrations_are_short_and_whole_words_are_tokens(tmp_path: Any) -> None:
    from mgs_trl.study.miniature.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    pools = {domain: train for domain, (train, _) in draw_rows(0, 300, 10).items()}
    rows = draw_demonstrations(pools, MIXED, 600, CLEAN, random.Random(0))
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        tokens = tokenizer.tokenize(prompt + row["completion"][0]["content"])
        answer = tokenizer(row["completion"][0]["content"])["input_ids"]
        assert not any(token.startswith("##") for token in tokens), tokens
        assert len(answer) < 48
        assert len(tokens) - len(answer) <= 40


def test_training_rows_load_as_json_lines(tmp_path: Any) -> None:
    """R11: columns of one domain are absent from another's file, and nested arguments survive the file format."""
    from datasets import load_dataset

    for domain, (train, _) in draw_rows(0, 200, 10).items():
        write_rows(tmp_path / f"{domain}.jsonl", train[:200])
        loaded = load_dataset(
            "json", data_files=str(tmp_path / f"{domain}.jsonl"), cache_dir=str(tmp_path), split="train"
        )
        for row, again in zip(train[:200], loaded, strict=True):
            again = json.loads(json.dumps(again))
            assert again["prompt"] == row["prompt"]
            for asked, got in zip(row.get("kwargs", []), again.get("kwargs", []), strict=True):
                assert {key: value for key, value in got.items() if value is not None} == asked


def test_demonstrate_serves_every_domain() -> None:
    rng = random.Random(0)
    for domain, (train, _) in draw_rows(0, 20, 5).items():
        assert demonstrate(train[0], rng, CLEAN), domain
