"""The tables that close a run, and the line per logging step."""

import io

from rich.console import Console

from mgs_trl.runs.progress import progress_line
from mgs_trl.runs.summary import closing_tables, conflicts, heldout_scores

LOG = [
    {"step": 0, "eval_domain/math/reward": 0.25, "eval_domain/chat/reward": -1.0},
    {"step": 1, "conflict/chat~math/cosine": -0.5, "conflict/chat~math/share": 1.0, "surgery/removed": 0.1},
    {"step": 2, "conflict/chat~math/cosine": 0.3, "conflict/chat~math/share": 0.5, "surgery/removed": 0.3},
    {
        "step": 3,
        "conflict/chat~math/cosine": 0.0,
        "conflict/chat~math/share": 0.0,
        "domain/chat/grad_norm": 0.0,
        "domain/math/grad_norm": 1.0,
    },
    {"step": 3, "eval_domain/math/reward": 0.75, "eval_domain/chat/reward": 2.0},
]


def test_before_is_the_first_evaluation_and_after_the_last():
    assert heldout_scores(LOG) == {"chat": (-1.0, 2.0), "math": (0.25, 0.75)}


def test_steps_without_a_gradient_have_no_cosine():
    """A domain whose groups are all equal has a zero gradient, and a cosine with nothing says nothing."""
    assert conflicts(LOG)["chat~math"].cosine == [-0.5, 0.3]


def test_closing_tables():
    console = Console(width=100, record=True, file=io.StringIO())
    for table in closing_tables(LOG):
        console.print(table)
    text = console.export_text()
    for expected in ("0.250", "0.750", "+0.500", "+3.000", "-0.100", "50%", "75%", "20.0%"):
        assert expected in text, expected
    assert closing_tables([{"loss": 1.0}]) == []


def test_conflicts_are_counted_by_log_which_may_be_many_steps():
    """With logging_steps 2 a log is the mean of two: the cosines -0.5 and 0.6 make one log without conflict."""
    pair = "conflict/chat~math"
    logs = [{"step": step, f"{pair}/cosine": 0.05, f"{pair}/share": 0.5, "surgery/removed": 0.2} for step in (2, 4)]
    (table,) = closing_tables(logs)
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["logs in conflict"] == ["0%"] and cells["modules in conflict"] == ["50%"]
    assert table.caption == "Surgery changed the update by 20.0% of its norm in the median log."


def test_a_single_evaluation_is_no_change():
    assert heldout_scores(LOG[:1]) == {"chat": (None, -1.0), "math": (None, 0.25)}
    (table,) = closing_tables(LOG[:1])
    assert [list(column.cells) for column in table.columns] == [
        ["chat", "math"],
        ["-"] * 2,
        ["-1.000", "0.250"],
        ["-"] * 2,
    ]


def test_progress_lines():
    logs = {"domain/math/reward": 0.5, "domain/chat/reward": 1.0, "surgery/removed": 0.02, "grad_norm": 1.5}
    line = progress_line(logs, 7)
    assert line == "step 7: reward: math 0.500, chat 1.000; surgery changed 2.0%; grad norm 1.5"
    assert progress_line({"eval_domain/math/reward": 0.5}, 7) == "step 7: held-out reward: math 0.500"
    reused = {"loss": 0.25, "surgery/removed": 0.02, "grad_norm": 1.5}
    assert progress_line(reused, 7) == "step 7: surgery changed 2.0%; grad norm 1.5"
    assert progress_line({"loss": 0.25}, 7) == "step 7: loss 0.25"
    assert progress_line({"train_runtime": 3.0}, 7) is None
