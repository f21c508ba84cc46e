"""Runs with different seeds draw with different noise from a colocated engine, and each of its engines with its own."""

import itertools

import pytest

from mgs_trl.rollouts.colocated import colocated_engine, engine_seed


def built(seed: int, engine: int, on_cpu: bool = False) -> dict:
    """What TRL's engine number `engine` would be made with."""
    generation = pytest.importorskip("trl.generation.vllm_generation")
    if not hasattr(generation, "LLM"):
        pytest.skip("vLLM is not installed")
    original, generation.LLM = generation.LLM, lambda **arguments: arguments
    try:
        with colocated_engine(True, seed, on_cpu, "float32"):
            return generation.LLM(model="m", seed=engine)
    finally:
        generation.LLM = original


def test_each_run_and_each_of_its_engines_has_a_seed_of_its_own():
    seeds = {(run, engine): built(run, engine)["seed"] for run, engine in itertools.product(range(20), range(8))}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert seeds[3, 1] == built(3, 1)["seed"] == engine_seed(3, 1)  # the ranks of one engine draw alike


def test_only_an_engine_on_the_cpu_gets_its_settings():
    assert built(0, 0).keys() == {"model", "seed"}
    assert built(0, 0, on_cpu=True).items() >= {"model": "m", "enforce_eager": True, "dtype": "float32"}.items()
