# ruff: noqa: E501  tables
"""From a recipe's `verifier:` value to reward functions; misspelt ones are refused (demand.md D4)."""

import asyncio
import inspect
import pickle
import subprocess
import sys

import misbehaving
import own_classes
import pytest
from omegaconf import OmegaConf

from mgs_trl.verifiers import VERIFIERS, Verifier, build_verifier, register_verifier


def names(spec, domain="math"):
    return [(function.__name__, weight) for function, weight in build_verifier(spec, domain)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("math", [("math/math_verify", 1.0)]),
        ("ifeval", [("math/ifeval", 1.0)]),
        ({"math": {"fallback": "none"}}, [("math/math_verify", 1.0)]),
        ({"math": None, "weight": 0.5}, [("math/math_verify", 0.5)]),
        ({"math": {"weight": 2}}, [("math/math_verify", 2.0)]),
        (["math", {"thinking_format": {}, "weight": 0.2}], [("math/math_verify", 1.0), ("math/thinking_format", 0.2)]),
        (["math", "math", {"math": {"name": "own"}}], [("math/math_verify", 1.0), ("math/math_verify_2", 1.0), ("math/own", 1.0)]),
        ("misbehaving:length_reward", [("math/length_reward", 1.0)]),
        ({"misbehaving:length_reward": {"isolated": False, "clip": [0, 1]}}, [("math/length_reward", 1.0)]),
        (misbehaving.length_reward, [("math/length_reward", 1.0)]),
        ({"own_classes:Brevity": {"words": 4}, "weight": 0.5}, [("math/brevity", 0.5)]),
        ("own_classes:Shouting", [("math/shouting", 1.0)]),
        (own_classes.Shouting, [("math/shouting", 1.0)]),
        ({"own_classes:callable_object": {"isolated": False}}, [("math/NoVerifier", 1.0)]),
        ({"reward_model": {"model": "somewhere"}}, [("math/reward_model", 1.0)]),
        ({"reward_server": {"url": "http://127.0.0.1:9"}}, [("math/reward_server", 1.0)]),
    ],
)  # fmt: skip
def test_every_form_of_a_recipe(spec, expected):
    assert names(spec) == expected
    if not callable(spec):
        config = OmegaConf.create({"verifier": spec})
        assert names(config.verifier) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("maths", "'maths' is unknown, did you mean 'math'"),
        ("qqq", "known are math, ifeval"),
        ([], "empty list"),
        ({"math": {}, "ifeval": {}}, "one name beside weight"),
        ({"math": "none"}, "must be a mapping"),
        ({"math": {"fallbak": "none"}}, "no option 'fallbak', did you mean 'fallback'"),
        ({"math": {"domain_column": "x"}}, "no option 'domain_column'"),
        ({"math": None, "weight": -1}, "weight of verifier 'math' must be a number, zero or more"),
        ({"math": None, "weight": "1"}, "must be a number"),
        ({"math": None, "weight": 0}, "weight of one verifier at least must be more than zero, all are 0"),
        ([{"math": None, "weight": 0}, {"thinking_format": {}, "weight": 0.0}], "more than zero, all are 0"),
        ("misbehaving:missing", "cannot be imported"),
        ("no_such_module:f", "cannot be imported"),
        ("misbehaving:not_a_function", "is a int, not a function"),
        (
            "own_classes:NoVerifier",
            "^domain 'd': verifier 'own_classes:NoVerifier' is a class that does not derive from",
        ),
        (own_classes.NoVerifier, "is a class that does not derive from"),
        ("own_classes:Brevity", "^domain 'd': verifier 'own_classes:Brevity' cannot be made: missing.*'words'"),
        ({"own_classes:Brevity": {"words": 0}}, "^words must be at least 1, got 0$"),
        ({"own_classes:Brevity": {"words": 1, "isolated": True}}, "no option 'isolated'"),
        ({"own_classes:Shouting": {"time_limt": 1}}, "did you mean 'time_limit'"),
        ({"own_classes:Shouting": {"time_limit": 0}}, "^time_limit must be a positive number"),
        ("own_classes:OnlyADomain", "cannot be made: got an unexpected keyword argument 'domain_column'"),
        ({"misbehaving:async_length_reward": {"isolated": True}}, "set isolated: false"),
        ({"misbehaving:length_reward": {"isolatd": True}}, "did you mean 'isolated'"),
        ({"misbehaving:length_reward": {"isolated": False, "time_limit": 2}}, "no option 'time_limit'"),
        ({"misbehaving:async_length_reward": {"on_timeout": 0}}, "no option 'on_timeout'"),
        ({"reward_model": {}}, "model must be a path"),
        ({"reward_server": {"url": "localhost:8000"}}, "url must be an http"),
        ({"math": {"strip": "thinking"}}, "strip must be one of"),
        ({"math": {"on_error": "zero"}}, "on_error must be 'raise' or 'none'"),
        ({"math": {"clip": [1, 0]}}, "clip must be two bounds"),
        (7, "'d'.*7 is unknown"),
    ],
)
def test_d4_what_is_misspelt_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_verifier(spec, "d")


def test_every_registered_verifier_takes_the_common_options():
    needed = {"reward_model": {"model": "m"}, "reward_server": {"url": "http://h"}}
    for name in VERIFIERS:
        options = {"strip": "none", "on_error": "none", "clip": [0, 1], "name": "n", **needed.get(name, {})}
        ((verifier, _),) = build_verifier({name: options}, "d", domain_column="task")
        assert isinstance(verifier, Verifier)
        assert (verifier.__name__, verifier.domain_column, verifier.strip) == ("d/n", "task", "none")
        assert not inspect.iscoroutinefunction(verifier)
        pickle.loads(pickle.dumps(verifier)) if name != "reward_server" else None


def test_registering_ones_own():
    class Constant(Verifier):
        label = "constant"

        def _score(self, batch):
            return [2.0] * len(batch.indices)

    register_verifier("constant", Constant)
    try:
        ((verifier, _),) = build_verifier({"constant": {"clip": [0, 1.5]}}, "d")
        assert verifier(prompts=["q"] * 2, completions=["a"] * 2, domain=["d", "e"]) == [1.5, None]
        with pytest.raises(ValueError, match="registered already"):
            register_verifier("constant", Constant)
    finally:
        del VERIFIERS["constant"]


def test_a_class_of_ones_own_is_made_with_its_domain_and_options():
    """As a registered one is: by its path, before anything is scored."""
    spec = [{"own_classes:Brevity": {"words": 4, "clip": [0, 1.5], "name": "short"}}, "own_classes:Shouting"]
    (brevity, _), (shouting, _) = build_verifier(spec, "d", domain_column="task")
    assert type(brevity) is own_classes.Brevity and brevity.domain_column == "task"
    batch = {"prompts": ["q"] * 3, "completions": ["a b c d e f g h", "a b", "A"], "task": ["d", "d", "e"]}
    assert brevity(**batch) == [0.5, 1.5, None]
    assert shouting(**{**batch, "completions": ["A B", "a b", "A"]}) == [1.0, 0.0, None]


def test_an_isolated_function_may_return_numpys_numbers():
    ((verifier, _),) = build_verifier("misbehaving:numpy_reward", "d")
    scores = verifier(prompts=["q"] * 2, completions=["a", "bb"])
    assert scores == [1.0, 2.0]
    assert all(type(score) in (int, float) for score in scores)


@pytest.mark.parametrize("isolated", [True, False])
def test_a_function_sees_its_own_rows_only(isolated):
    ((verifier, _),) = build_verifier({"misbehaving:length_reward": {"isolated": isolated}}, "d")
    scores = verifier(prompts=["q"] * 3, completions=["a", "bb", "ccc"], domain=["d", "e", "d"])
    assert scores == [1.0, None, 3.0]


@pytest.mark.parametrize("isolated", [True, False])
def test_a_functions_parameters_are_the_columns_it_needs(isolated):
    ((verifier, _),) = build_verifier({"misbehaving:column_reward": {"isolated": isolated}}, "d")
    assert isinstance(verifier, Verifier)
    assert verifier.required_columns == ("ending",)
    assert {column for choice in verifier.column_choices for column in choice} == {"ending", "bonus"}
    with pytest.raises(ValueError, match="needs the columns ending"):
        verifier.check_columns(["prompt"])
    assert verifier(prompts=["q"] * 3, completions=["ab", "ab", "ab"], ending=["b", "a", None]) == [1.0, 0.0, None]


def test_a_function_that_needs_the_trainer_cannot_be_isolated():
    from types import SimpleNamespace

    with pytest.raises(ValueError, match=r"needs trainer_state.*isolated: false"):
        build_verifier("misbehaving:stateful_reward", "d")
    ((verifier, _),) = build_verifier({"misbehaving:stateful_reward": {"isolated": False}}, "d")
    assert verifier(prompts=["q"], completions=["a"], trainer_state=SimpleNamespace(global_step=7)) == [7.0]


def test_an_async_function_stays_async_and_sees_its_own_rows():
    from trl.trainer.utils import is_async_callable

    ((verifier, _),) = build_verifier("misbehaving:async_length_reward", "d")
    assert is_async_callable(verifier)
    scores = asyncio.run(verifier(prompts=["q"] * 3, completions=["a", "bb", "ccc"], domain=["d", "e", "d"]))
    assert scores == [1.0, None, 3.0]


def test_importing_the_package_imports_no_torch():
    code = "import sys, mgs_trl.verifiers; print([m for m in ('torch', 'transformers', 'trl', 'httpx') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
