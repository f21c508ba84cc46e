"""Reward functions of the user's own, isolated and in process: whatever they return, print or read."""

import asyncio
import inspect
import threading

import pytest

from mgs_trl.verifiers import VerifierError, build_verifier, guard_reward

both = pytest.mark.parametrize("isolated", [True, False])


def build(name, **options):
    ((verifier, _),) = build_verifier({f"misbehaving:{name}": options}, "d")
    return verifier


def run(verifier, completions, **columns):
    scores = verifier(prompts=["a question"] * len(completions), completions=completions, **columns)
    return asyncio.run(scores) if inspect.iscoroutine(scores) else scores


@both
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_one_sample_without_a_number_costs_no_neighbour(isolated, bad, caplog):
    counts = {}
    verifier = build("moody_reward", isolated=isolated, on_error="none")
    columns = {"domain": ["e", "d", "d", "d"], "log_metric": counts.__setitem__}
    assert run(verifier, ["fine", "fine", bad, "fine"], **columns) == [None, 1.0, None, 1.0]
    assert (counts["verifier/d/moody_reward/non_finite"], counts["verifier/d/moody_reward/errors"]) == (1.0, 0.0)
    (record,) = caplog.records
    assert f"sample 2: returned {bad}" in record.getMessage()


@both
def test_the_sample_that_raises_is_named_by_its_place_in_the_batch(isolated):
    with pytest.raises(VerifierError, match=r"sample 2: returned nan.*'nan'"):
        run(build("moody_reward", isolated=isolated), ["fine", "fine", "nan"], domain=["e", "d", "d"])


def test_a_column_that_cannot_be_sent_to_a_worker_costs_its_sample_alone():
    columns = {"tool": [None, threading.Lock(), None]}
    with pytest.raises(VerifierError, match="'d/length_reward', domain 'd', sample 1: raised TypeError: cannot pickle"):
        run(build("length_reward"), ["a", "bb", "ccc"], **columns)
    assert run(build("length_reward", on_error="none"), ["a", "bb", "ccc"], **columns) == [1.0, None, 3.0]
    assert run(build("length_reward", on_error="none"), ["bb"], tool=[threading.Lock()]) == [None]


def test_an_isolated_function_gets_none_of_the_trainers_environments():
    assert run(build("length_reward"), ["a", "bb"], environments=[threading.Lock()] * 2) == [1.0, 2.0]


@both
@pytest.mark.parametrize("name", ["numpy_reward", "array_reward"])
def test_numbers_and_arrays_of_numpy_become_floats(isolated, name):
    scores = run(build(name, isolated=isolated), ["a", "bb"])
    assert scores == [1.0, 2.0]
    assert [type(score) for score in scores] == [float, float]


@both
@pytest.mark.parametrize("name", ["short_reward", "scalar_reward", "text_reward", "nested_reward"])
def test_what_is_no_list_of_scores_is_an_error_or_none(isolated, name):
    with pytest.raises(VerifierError, match=f"d/{name}.*returned"):
        run(build(name, isolated=isolated), ["a", "b", "c"])
    counts = {}
    verifier = build(name, isolated=isolated, on_error="none")
    assert run(verifier, ["a", "b", "c"], log_metric=counts.__setitem__) == [None] * 3
    assert sum(counts.values()) == 3


@both
def test_a_number_that_no_float_holds_is_not_finite(isolated):
    with pytest.raises(VerifierError, match="sample 1: returned 10000"):
        run(build("huge_reward", isolated=isolated), ["a", "huge"])
    assert run(build("huge_reward", isolated=isolated, on_error="none"), ["a", "huge"]) == [1.0, None]


def test_a_generator_that_raises_is_named():
    verifier = build("generator_reward", isolated=False)
    assert run(verifier, ["a", "b"]) == [1.0, 1.0]
    with pytest.raises(VerifierError, match=r"d/generator_reward.*ZeroDivisionError"):
        run(verifier, ["a", "raise"])


def test_an_async_function_is_checked_as_any():
    assert run(build("async_length_reward"), ["a", "bb"]) == [1.0, 2.0]

    async def nan(completions, **columns):
        return [float("nan") if completion == "nan" else 1.0 for completion in completions]

    ((verifier, _),) = build_verifier(nan, "d")
    with pytest.raises(VerifierError, match="sample 1: returned nan"):
        run(verifier, ["a", "nan"])
    verifier.on_error = "none"  # pyright: ignore
    assert run(verifier, ["a", "nan", "b"]) == [1.0, None, 1.0]


def test_a_guarded_function_raises_at_the_sample():
    guarded = guard_reward(lambda completions, **_: [1.0, float("inf")], "mine")
    with pytest.raises(VerifierError, match=r"'mine', domain 'e', sample 1: returned inf"):
        run(guarded, ["a", "b"], domain=["d", "e"])


@both
def test_a_function_may_print_as_much_as_it_likes(isolated):
    assert run(build("loud_reward", isolated=isolated), ["a", "b"]) == [1.0, 1.0]


def test_an_isolated_function_finds_stdin_empty():
    assert run(build("cat_reward", time_limit=20), ["a", "b", "c"]) == [0.0] * 3
    with pytest.raises(VerifierError, match="sample 0: raised EOFError"):
        run(build("input_reward", time_limit=20), ["a", "b", "c"])
    assert run(build("length_reward"), ["a", "bb"]) == [1.0, 2.0]  # no request was eaten
