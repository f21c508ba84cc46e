"""`python -m mgs_trl.score`: the recipe's verifiers on a file of completions."""

import json

import pytest

from mgs_trl.score import main

RECIPE = """
model: no/such-model
domains:
  math:
    dataset: none.jsonl
    verifier: math
  instruction_following:
    dataset: none.jsonl
    verifier: {ifeval: {}}
"""
ROWS = [
    {"domain": "math", "prompt": "1+1", "completion": "It is \\boxed{2}", "answer": "2"},
    {"domain": "math", "prompt": "1+1", "completion": "It is \\boxed{3}", "answer": "2"},
    {
        "domain": "instruction_following",
        "prompt": "Hi, you",
        "completion": [{"role": "assistant", "content": "hello there"}],
        "instruction_id_list": ["punctuation:no_comma", "change_case:english_capital"],
        "kwargs": [{}, {}],
    },
]


@pytest.fixture
def files(tmp_path):
    recipe, rows = tmp_path / "recipe.yaml", tmp_path / "rows.jsonl"
    recipe.write_text(RECIPE)
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return recipe, rows, tmp_path / "scored.jsonl"


def test_scores_are_written_and_summed(files, capsys):
    recipe, rows, out = files
    assert main([str(recipe), str(rows), "--out", str(out)]) == 0
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["scores"]["reward"] for row in scored] == [1.0, 0.0, 0.5]
    assert [row["completion"] for row in scored] == [row["completion"] for row in ROWS]
    table = capsys.readouterr().out
    assert "2 of 2" in table
    assert "0.500" in table


@pytest.mark.parametrize(
    "line, words",
    [
        ("{not json", "line 4 is not JSON"),
        ('{"domain": "math"}', "line 4 has no 'completion'"),
        ('{"domain": "code", "completion": "x"}', "row 4 has domain 'code'"),
        ('{"domain": ["math"], "completion": "x"}', "row 4 has domain ['math']"),
        ('{"domain": "math", "completion": "x"}', "row 4: verifier 'math/math_verify' needs the columns answer"),
        ('{"domain": "math", "completion": "x", "answer": " "}', "row 4: answer must be a non-empty text"),
        (
            '{"domain": "math", "completion": 5, "answer": "5"}',
            "row 4: completion must be text or a list of",
        ),
        (
            '{"domain": "math", "completion": ["x"], "answer": "5"}',
            "row 4: completion must be text or a list of",
        ),
        (
            '{"domain": "instruction_following", "completion": "x", "instruction_id_list": ["a"]}',
            "row 4: instruction id 'a'",
        ),
    ],
)
def test_bad_lines_are_named(files, capsys, line, words):
    recipe, rows, _ = files
    rows.write_text(rows.read_text() + line + "\n")
    assert main([str(recipe), str(rows)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error


def test_a_file_that_is_not_utf_8_is_named(files, capsys):
    recipe, rows, _ = files
    rows.write_bytes(b'{"domain": "math", "completion": "\xff"}')
    assert main([str(recipe), str(rows)]) == 2
    assert f"error: {rows} is not UTF-8" in capsys.readouterr().err
