"""What a check finds out about the policy from its configuration alone."""

import pytest

from mgs_trl.train import main


@pytest.mark.parametrize(
    "changes, expected",
    [
        ([], "1 embedding, 1 attention, 1 mlp, 3 norm, 1 head"),
        (["strategy=mixed"], "no surgery"),
        (["strategy=global_surgery"], "the whole model"),
        (["peft={r: 2, target_modules: [q_proj]}"], "1 attention"),
        (["trainer.surgery_exclude=[norm, mlp]"], "1 embedding, 1 attention, 1 head"),
        (["strategy=observe", "trainer.surgery_exclude=[norm]"], "1 embedding, 1 attention, 1 mlp, 3 norm, 1 head"),
        (
            ["trainer.surgery_exclude=[norm]", "trainer.surgery_top_modules=2"],
            "the largest 2 of 1 embedding, 1 attention, 1 mlp, 1 head",
        ),
    ],
)
def test_the_modules_of_the_run_are_counted(miniature, capsys, changes, expected):
    assert main(["miniature", "rollout=transformers", "--check", *changes]) == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if "modules" in line)
    assert shown.strip("│ ").removeprefix("modules").strip("│ ") == expected


def test_kinds_that_the_policy_does_not_have_are_refused(miniature, capsys):
    changes = ["trainer.surgery_exclude=[norm]", "peft={r: 2, target_modules: [q_proj]}"]
    assert main(["miniature", "rollout=transformers", "--check", *changes]) == 2
    assert capsys.readouterr().err == (
        "error: trainer.surgery_exclude has 'norm', but the kinds of the modules that are trained are attention.\n"
    )
