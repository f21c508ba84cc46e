"""What goes wrong in a verifier is named, counted, and never becomes a silent number (demand.md R1 to R8)."""

import asyncio
import logging
import time

import misbehaving
import pytest

from mgs_trl.verifiers import (
    MathVerifier,
    VerifierError,
    build_verifier,
    guard_reward,
    ifeval_verifier,
    math_verifier,
)

# https://github.com/huggingface/Math-Verify/issues/65: math-verify's own time limit does not end it
HANGS = r"\boxed{\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}}"


def run(verifier, completions, **columns):
    return verifier(prompts=["a question"] * len(completions), completions=completions, **columns)


def moody(**options):
    ((verifier, _),) = build_verifier({"misbehaving:moody_reward": options}, "d")
    return verifier


def test_r1_nested_powers_are_killed_within_the_limit_and_a_second():
    verifier, seconds = MathVerifier(time_limit=1.0), []
    for _ in range(3):  # the best of three: what else the machine does is not the pool's time
        assert run(verifier, [r"\boxed{5}"] * 2, answer=["5"] * 2) == [1.0, 1.0]  # a worker is there and loaded
        start = time.monotonic()
        assert run(verifier, [HANGS], answer=["5"]) == [None]
        seconds.append(time.monotonic() - start)
    assert 1.0 <= min(seconds) < 2.0


def test_r1_a_hang_is_counted_named_and_costs_no_neighbour(caplog):
    verifier, counts = MathVerifier(time_limit=1.0), {}
    columns = {"answer": ["5"] * 3, "log_metric": counts.__setitem__}
    with caplog.at_level(logging.WARNING, logger="mgs_trl.verifiers"):
        assert run(verifier, [r"\boxed{5}", HANGS, r"\boxed{6}"], **columns) == [1.0, None, 0.0]
    assert counts["verifier/math/math_verify/timeouts"] == 1.0
    (record,) = caplog.records
    for part in ("math/math_verify", "domain 'math'", "sample 1", "a question", "dfrac"):
        assert part in record.getMessage()


def test_r1_a_timeout_scores_the_configured_value_and_the_run_goes_on():
    verifier = MathVerifier(time_limit=0.5, on_timeout=0.0)
    assert run(verifier, [HANGS], answer=["5"]) == [0.0]
    assert run(verifier, [r"\boxed{5}"], answer=["5"]) == [1.0]


def test_r1_a_keyword_that_is_a_catastrophic_pattern():
    from mgs_trl.verifiers import IFEvalVerifier

    rows = {"instruction_id_list": [["keywords:existence"]] * 2, "kwargs": [[{"keywords": ["(a+)+$"]}]] * 2}
    assert run(IFEvalVerifier(time_limit=0.5), ["a" * 40 + "!", "baa"], **rows) == [None, 1.0]


@pytest.mark.parametrize("isolated", [True, False])
def test_r2_r3_a_raise_stops_the_run_and_names_the_sample(isolated):
    verifier = moody(isolated=isolated)
    with pytest.raises(VerifierError) as error:
        run(verifier, ["fine", "raise"], domain=["d", "d"])
    for part in ("d/moody_reward", "'d'", "ZeroDivisionError", "a question"):
        assert part in str(error.value)
    if isolated:  # a function called with the whole batch alone knows which row it was
        assert "sample 1" in str(error.value)
        assert "'raise'" in str(error.value)


@pytest.mark.parametrize(("isolated", "scores"), [(True, [1.0, None, 1.0]), (False, [None, None, None])])
def test_r2_r3_by_option_a_raise_scores_none_and_is_counted(isolated, scores, caplog):
    counts = {}
    verifier = moody(isolated=isolated, on_error="none")
    assert run(verifier, ["fine", "raise", "fine"], log_metric=counts.__setitem__) == scores
    assert counts["verifier/d/moody_reward/errors"] == scores.count(None)
    assert "ZeroDivisionError" in caplog.text


def test_r1_a_users_function_that_hangs_is_killed():
    assert run(moody(time_limit=0.5), ["fine", "hang", "fine"]) == [1.0, None, 1.0]


def test_r4_none_for_every_row_is_passed_on():
    assert run(moody(), ["none", "none"]) == [None, None]
    assert run(math_verifier, ["a", "b"], answer=["5", "6"], domain=["chat", "chat"]) == [None, None]


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_r5_r6_nan_and_inf_are_errors_or_none_and_counted(value, isolated):
    with pytest.raises(VerifierError, match=rf"sample 1.*returned {value}"):
        run(moody(isolated=isolated), ["fine", value])
    counts = {}
    scores = run(moody(isolated=True, on_error="none"), ["fine", value], log_metric=counts.__setitem__)
    assert scores == [1.0, None]
    assert counts["verifier/d/moody_reward/non_finite"] == 1.0


def test_r8_a_list_of_the_wrong_length_is_an_error():
    ((verifier, _),) = build_verifier({"misbehaving:short_reward": {"isolated": False}}, "d")
    with pytest.raises(VerifierError, match=r"d/short_reward.*returned 2 scores for 3 completions"):
        run(verifier, ["a"] * 3)
    ((isolated, _),) = build_verifier("misbehaving:short_reward", "d")
    with pytest.raises(VerifierError, match="expected a list of one score"):
        run(isolated, ["a"] * 3)
    with pytest.raises(ValueError, match="1 prompts for 2 completions"):
        math_verifier(["q"], ["a", "b"])


def test_guard_checks_a_users_function():
    guarded = guard_reward(misbehaving.moody_reward, "mine")
    assert guarded.__name__ == "mine"
    assert run(guarded, ["fine", "none"]) == [1.0, None]
    with pytest.raises(VerifierError, match=r"'mine', domain 'e', sample 1: returned nan.*'nan'"):
        run(guarded, ["fine", "nan"], domain=["d", "e"])
    with pytest.raises(VerifierError, match=r"'mine'.*raised ZeroDivisionError: moody"):
        run(guarded, ["raise"])
    with pytest.raises(VerifierError, match="returned 2 scores for 3 completions"):
        run(guard_reward(misbehaving.short_reward, "short"), ["a"] * 3)
    with pytest.raises(VerifierError, match="returned NoneType"):
        run(guard_reward(lambda **_: None, "nothing"), ["a"])


def test_guard_accepts_arrays_and_keeps_async_functions_async():
    torch = pytest.importorskip("torch")
    guarded = guard_reward(lambda completions, **_: torch.ones(len(completions)), "tensor")
    assert run(guarded, ["a", "b"]) == [1.0, 1.0]
    asynchronous = guard_reward(misbehaving.async_length_reward, "async")
    assert asyncio.run(asynchronous(prompts=["q"], completions=["abc"])) == [3.0]


def test_r11_columns_missing_in_the_first_row_are_read_row_by_row():
    completions = ["no", r"\boxed{5}", [{"role": "assistant", "content": "a, b"}]]
    columns = {
        "domain": ["chat", "math", "if"],
        "answer": [None, "5", None],
        "instruction_id_list": [None, None, ["punctuation:no_comma"]],
        "kwargs": [None, None, [{}]],
    }
    prompts = ["q", "q", [{"role": "user", "content": "q"}]]
    assert math_verifier(prompts, completions, **columns) == [None, 1.0, None]
    assert ifeval_verifier(prompts, completions, **columns) == [None, None, 0.0]


def test_in_plain_trl_the_arguments_of_its_trainer_are_accepted():
    extra = {"completion_ids": [[1], [2]], "trainer_state": object(), "environments": None}
    assert run(math_verifier, [r"\boxed{5}"] * 2, answer=["5", "6"], **extra) == [1.0, 0.0]
