"""`python -m mgs_trl.score`: what goes wrong is a sentence, and lines end where JSON's do."""

import json

import pytest

from mgs_trl.score import main

RECIPE = """
model: no/such-model
domains:
  math:
    dataset: none.jsonl
    verifier: {verifier}
"""


@pytest.fixture
def files(tmp_path):
    def write(verifier: str, completion: str):
        recipe, rows = tmp_path / "recipe.yaml", tmp_path / "rows.jsonl"
        recipe.write_text(RECIPE.format(verifier=verifier))
        row = {"domain": "math", "prompt": "q", "completion": completion, "answer": "5"}
        rows.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
        return [str(recipe), str(rows)]

    return write


def test_line_separators_of_unicode_end_no_line_and_the_out_folder_is_made(files, tmp_path):
    out = tmp_path / "new" / "folder" / "scored.jsonl"
    assert main([*files("math", "one\u2028two\u2029three\x85 \\boxed{5}"), "--out", str(out)]) == 0
    (scored,) = map(json.loads, out.read_text().splitlines())
    assert scored["scores"]["reward"] == 1.0


def test_a_verifier_that_raises_is_named_without_a_traceback(files, capsys):
    assert main(files("misbehaving:moody_reward", "raise")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: verifier 'math/moody_reward'")
    assert "sample 0" in error


def test_an_out_path_that_cannot_be_written_is_an_error(files, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*files("math", "x"), "--out", str(tmp_path / "file" / "scored.jsonl")]) == 2
    assert "file" in capsys.readouterr().err
