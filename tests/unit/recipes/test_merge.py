"""Merging experts, against the papers' definitions in float64."""

import itertools
import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mgs_trl.strategies.merge import METHODS, check_merge, merge_experts, merge_tensors

QUERY = "model.layers.0.self_attn.q_proj.weight"


def tiny(tie: bool = False) -> LlamaForCausalLM:
    sizes: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=tie))


def moved(model: Any, seed: int, scale: float = 0.02) -> Any:
    """A copy some way from the model, as training would leave it."""
    torch.manual_seed(seed)
    other = LlamaForCausalLM(model.config)
    other.load_state_dict({name: value + scale * torch.randn_like(value) for name, value in model.state_dict().items()})
    other.tie_weights()
    return other


def tensors_of(directory: Path | str) -> dict[str, torch.Tensor]:
    return {name: value for file in Path(directory).glob("*.safetensors") for name, value in load_file(file).items()}


def float64_of(directory: Path | str) -> dict[str, numpy.ndarray]:
    return {name: value.double().numpy() for name, value in tensors_of(directory).items()}


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """`base`, and experts of `math` and `chat`; float32, one file each."""
    root = tmp_path_factory.mktemp("experts")
    torch.manual_seed(0)
    base = tiny()
    for seed, (name, model) in enumerate({"base": base, "math": base, "chat": base}.items()):
        (moved(model, seed) if name != "base" else model).save_pretrained(root / name)
    (root / "math" / "tokenizer.json").write_text("{}")
    (root / "math" / "chat_template.jinja").write_text("template of math")
    (root / "math" / "optimizer.pt").write_text("not to be copied")
    return {name: str(root / name) for name in ("base", "math", "chat")}


@pytest.fixture
def experts(places) -> dict[str, str]:
    return {name: places[name] for name in ("math", "chat")}


# The definitions, written again.


def trimmed(vector: numpy.ndarray, density: float) -> numpy.ndarray:
    kept = numpy.argsort(-numpy.abs(vector), axis=None)[: math.floor(density * vector.size)]
    result = numpy.zeros(vector.size)
    result[kept] = vector.reshape(-1)[kept]
    return result.reshape(vector.shape)


def elected_mean(vectors: list[numpy.ndarray], weights: list[float]) -> numpy.ndarray:
    """Element by element: the mean over those of the elected sign."""
    weighted = numpy.stack([w * v for w, v in zip(weights, vectors, strict=True)]).reshape(len(vectors), -1)
    result = numpy.zeros(weighted.shape[1])
    for place, column in enumerate(weighted.T):
        positive = column.sum() >= 0
        agreeing = [value for value in column if value != 0 and (value > 0) == positive]
        result[place] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return result.reshape(vectors[0].shape)


def by_definition(method, experts, base, weights, density) -> Any:
    vectors = [expert - base for expert in experts]
    if method == "linear":
        return sum(w * e for w, e in zip(weights, experts, strict=True)) / sum(weights)
    if method == "task_arithmetic":
        return base + sum(w * v for w, v in zip(weights, vectors, strict=True))
    assert method == "ties"
    return base + elected_mean([trimmed(vector, density) for vector in vectors], weights)


def outcomes(method, vectors, weights, density):
    """All that DARE could make of a tensor: one array for every choice of who keeps an element."""
    for keeps in itertools.product([0, 1], repeat=len(vectors)):
        dropped = [keep * vector / density for keep, vector in zip(keeps, vectors, strict=True)]
        if method == "dare_linear":
            yield sum(w * v for w, v in zip(weights, dropped, strict=True))
        else:
            yield elected_mean(dropped, weights)


@pytest.mark.parametrize(
    "method, weights, density, filled",
    [
        ("linear", None, None, ([1, 1], None)),
        ("linear", {"chat": 3, "math": 1.0}, None, ([1, 3], None)),
        ("task_arithmetic", None, None, ([0.5, 0.5], None)),
        ("task_arithmetic", {"math": 0.7, "chat": -0.4}, None, ([0.7, -0.4], None)),
        ("ties", None, None, ([1, 1], 0.2)),
        ("ties", None, 1.0, ([1, 1], 1.0)),
        ("ties", {"math": 0.3, "chat": 1.5}, 0.5, ([0.3, 1.5], 0.5)),
        ("ties", {"math": 1, "chat": -0.6}, 0.75, ([1, -0.6], 0.75)),
    ],
)
def test_a_merge_is_what_the_paper_defines(places, experts, tmp_path, method, weights, density, filled):
    merge_experts(places["base"], experts, tmp_path / "out", method, weights, density)
    base, found = float64_of(places["base"]), float64_of(tmp_path / "out")
    read = {name: float64_of(directory) for name, directory in experts.items()}
    assert set(found) == set(base)
    for name, tensor in found.items():
        wanted = by_definition(method, [read[d][name] for d in experts], base[name], *filled)
        numpy.testing.assert_allclose(tensor, wanted, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize(
    "weights, density, filled",
    [
        (None, None, (None, 0.5)),
        ({"math": 1, "chat": -0.6}, 0.3, ([1, -0.6], 0.3)),
        ({"math": 0.3, "chat": 2}, 0.8, ([0.3, 2], 0.8)),
    ],
)
def test_dare_is_one_of_its_outcomes_each_as_often_as_defined(
    places, experts, tmp_path, method, weights, density, filled
):
    merge_experts(places["base"], experts, tmp_path / "out", method, weights, density, seed=3)
    used, kept = filled
    used = used or ([0.5, 0.5] if method == "dare_linear" else [1, 1])
    base, found = float64_of(places["base"]), float64_of(tmp_path / "out")
    read = [float64_of(directory) for directory in experts.values()]
    total, zeros = 0, 0
    for name, tensor in found.items():
        vectors = [expert[name] - base[name] for expert in read]
        errors = numpy.stack([abs(tensor - base[name] - o) for o in outcomes(method, vectors, used, kept)])
        assert errors.min(axis=0).max() < 2e-6, name
        total, zeros = total + tensor.size, zeros + int((errors[0] < 1e-7).sum())
    # Both experts drop an element with probability (1 - density)**2: binomial, five standard deviations.
    share = (1 - kept) ** 2
    assert abs(zeros / total - share) < 5 * math.sqrt(share * (1 - share) / total)


def test_dare_at_density_1_drops_nothing_and_says_nothing(places, experts, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merge_experts(places["base"], experts, tmp_path / "dare", "dare_linear", density=1.0)
        merge_experts(places["base"], experts, tmp_path / "ties", "ties", density=1)
        merge_experts(places["base"], experts, tmp_path / "dare_ties", "dare_ties", density=1)
    merge_experts(places["base"], experts, tmp_path / "plain", "task_arithmetic")
    for one, other in (("dare", "plain"), ("ties", "dare_ties")):
        found, wanted = tensors_of(tmp_path / one), tensors_of(tmp_path / other)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def numbers(low, high):
    return st.integers(round(low * 1000), round(high * 1000)).map(lambda value: value / 1000)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 4), numbers(0.1, 1), st.sampled_from(["linear", "task_arithmetic", "ties"]))
def test_tensors_of_any_number_of_experts(data, count, density, method):
    # Distinct magnitudes, so that which ones are the largest is no matter of ties; sums of few decimals that are not
    # nearly 0, so that float32 and float64 elect the same sign.
    weights = data.draw(st.lists(numbers(0.1, 2), min_size=count, max_size=count))
    generator = numpy.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    base, *experts = (generator.standard_normal((3, 5)).astype("float32") for _ in range(count + 1))
    found = merge_tensors(
        [torch.tensor(e) for e in experts], torch.tensor(base), method, weights, None if method != "ties" else density
    )
    vectors = [expert.astype("float64") - base for expert in experts]
    wanted = by_definition(method, [base + vector for vector in vectors], base.astype("float64"), weights, density)
    sums = abs(sum(w * trimmed(v, density) for w, v in zip(weights, vectors, strict=True)))
    sure = (sums > 1e-5) | (sums == 0) | (method != "ties")
    numpy.testing.assert_allclose(found.numpy()[sure], wanted[sure], rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(numbers(-3, 3), min_size=1, max_size=8), st.lists(numbers(0.1, 5), min_size=1, max_size=4))
def test_identical_experts_merge_into_themselves(values, weights):
    expert = torch.tensor(values)
    torch.testing.assert_close(merge_tensors([expert] * len(weights), None, "linear", weights), expert)


@settings(max_examples=25, deadline=None)
@given(st.lists(numbers(-3, 3), min_size=4, max_size=4), st.lists(numbers(-3, 3), min_size=4, max_size=4))
def test_one_expert_of_weight_1_is_itself(base, expert):
    found = merge_tensors([torch.tensor(expert)], torch.tensor(base), "task_arithmetic", [1])
    torch.testing.assert_close(found, torch.tensor(expert))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(numbers(0.1, 3), min_size=4, max_size=4), min_size=1, max_size=4))
def test_ties_of_experts_that_agree_is_their_mean(experts):
    found = merge_tensors([torch.tensor(e) for e in experts], torch.zeros(4), "ties", [1] * len(experts), 1.0)
    torch.testing.assert_close(found, torch.tensor(experts).mean(dim=0))


def test_weights_count_in_the_election_and_the_number_of_experts_divides():
    """By hand; PEFT's own `ties` would elect the sign of 3 - 1 - 1, and give 0.15."""
    experts = [torch.tensor([3.0]), torch.tensor([-1.0]), torch.tensor([-1.0])]
    found = merge_tensors(experts, torch.zeros(1), "ties", [0.1, 1, 2], 1.0)
    assert found.item() == pytest.approx(-1.5)


@pytest.mark.parametrize("density", [0.25, 0.8])
def test_dare_keeps_the_expectation(density):
    vector, count = torch.tensor([1.0, -2.0, 0.5, 3.0]), 1000
    found = torch.stack([merge_tensors([vector], torch.zeros(4), "dare_linear", [1], density, s) for s in range(count)])
    # vector * Bernoulli(density) / density has this standard deviation; five of them for the mean of `count`.
    deviation = vector.abs() * math.sqrt((1 - density) / density)
    assert ((found.mean(dim=0) - vector).abs() < 5 * deviation / math.sqrt(count)).all()
    torch.testing.assert_close(found.std(dim=0), deviation, rtol=0.15, atol=0)


def test_a_seed_fixes_the_masks_and_experts_have_different_ones(places, experts, tmp_path):
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        merge_experts(places["base"], experts, tmp_path / name, "dare_linear", density=0.5, seed=seed)
    one, again, two = (tensors_of(tmp_path / name) for name in ("one", "again", "two"))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], two[name]) for name in one)
    vector = torch.ones(1000)
    pair = merge_tensors([vector, vector * 10], torch.zeros(1000), "dare_linear", [1, 1], 0.5, 5)
    # With one mask for both there would be 0 and 22 only.
    assert sorted(pair.unique().tolist()) == [0, 2, 20, 22]
    layers = [one[f"model.layers.{n}.self_attn.q_proj.weight"] for n in (0, 1)]
    base = tensors_of(places["base"])
    masks = [layer == base[f"model.layers.{n}.self_attn.q_proj.weight"] for n, layer in enumerate(layers)]
    assert not torch.equal(*masks)


@pytest.mark.parametrize("method", METHODS)
def test_the_layout_of_files_does_not_matter(places, experts, tmp_path, method):
    """Shards of experts and base, and of what is written."""
    sharded = {}
    for name, directory in places.items():
        sharded[name] = str(tmp_path / name)
        LlamaForCausalLM.from_pretrained(directory).save_pretrained(sharded[name], max_shard_size="4KB")
        assert len(list((tmp_path / name).glob("*.safetensors"))) > 2
    merge_experts(places["base"], experts, tmp_path / "whole", method)
    of_shards = {"math": sharded["math"], "chat": places["chat"]}
    merge_experts(sharded["base"], of_shards, tmp_path / "parts", method, shard_bytes=5000)
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert set(whole) == set(parts) and all(torch.equal(whole[name], parts[name]) for name in whole)
    files = [file for file in (tmp_path / "parts").glob("*.safetensors") if len(load_file(file)) > 1]
    assert files and all(sum(t.nbytes for t in load_file(file).values()) <= 5000 for file in files)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "parts").state_dict()
    assert all(torch.equal(loaded[name], whole[name]) for name in whole)


def test_random_numbers_of_the_caller_are_left_alone(places, experts, adapters, tmp_path):
    before = torch.get_rng_state()
    merge_experts(places["base"], experts, tmp_path / "full", "dare_ties")
    merge_experts(places["base"], adapters, tmp_path / "adapters", "dare_linear")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_dtype_is_that_of_the_first_expert(places, tmp_path):
    base = LlamaForCausalLM.from_pretrained(places["base"])
    moved(base, 1).to(torch.bfloat16).save_pretrained(tmp_path / "math")
    moved(base, 2).save_pretrained(tmp_path / "chat")
    experts = {name: str(tmp_path / name) for name in ("math", "chat")}
    merge_experts(places["base"], experts, tmp_path / "out", "task_arithmetic")
    found, (math_, chat) = tensors_of(tmp_path / "out"), (tensors_of(place) for place in experts.values())
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        # In bfloat16 only at the end: half a unit in the last place of 8 bits, not more.
        wanted = (math_[name].double() + chat[name].double()) / 2
        torch.testing.assert_close(tensor.double(), wanted, rtol=2**-8, atol=1e-6)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


@pytest.mark.parametrize("method", METHODS)
def test_tied_embeddings_may_be_stored_twice_or_once(tmp_path, method):
    torch.manual_seed(0)
    base = tiny(tie=True)
    for name, model in (("base", base), ("math", moved(base, 1)), ("chat", moved(base, 2))):
        model.save_pretrained(tmp_path / name)
    experts = {name: str(tmp_path / name) for name in ("math", "chat")}
    merge_experts(str(tmp_path / "base"), experts, tmp_path / "once", method)
    file = tmp_path / "chat" / "model.safetensors"
    tensors = load_file(file)
    assert "lm_head.weight" not in tensors
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    merge_experts(str(tmp_path / "base"), experts, tmp_path / "twice", method)
    once, twice = tensors_of(tmp_path / "once"), tensors_of(tmp_path / "twice")
    assert set(once) == set(twice) and all(torch.equal(once[name], twice[name]) for name in once)
    AutoModelForCausalLM.from_pretrained(tmp_path / "twice")

    save_file({**tensors, "lm_head.weight": torch.zeros(32, 16)}, file, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"chat' has a lm_head.weight unlike model.embed_tokens.weight, but its config"
    ):
        merge_experts(str(tmp_path / "base"), experts, tmp_path / "other", method)


def test_what_lies_beside_the_weights(places, experts, tmp_path):
    out = tmp_path / "out"
    LlamaForCausalLM.from_pretrained(places["base"]).save_pretrained(str(out), max_shard_size="4KB")
    (out / "metrics.jsonl").write_text("a log")
    merge_experts(places["base"], experts, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "metrics.jsonl", "model.safetensors",
        "tokenizer.json",
    ]  # fmt: skip
    assert (out / "chat_template.jinja").read_text() == "template of math"
    assert (out / "config.json").read_text() == (Path(places["math"]) / "config.json").read_text()


def test_linear_does_not_read_the_base(experts, tmp_path):
    merge_experts("no/such-base", experts, tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"^the base 'no/such-base' is neither a directory nor a model that can be had"
    ):
        merge_experts("no/such-base", experts, tmp_path / "out", "ties")


def test_an_interrupted_merge_does_not_look_finished(places, experts, tmp_path, monkeypatch):
    calls = []

    def fail(*args, **kwargs):
        calls.append(args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", fail)  # PEFT, imported above, would keep it otherwise
        with pytest.raises(KeyboardInterrupt):
            merge_experts(places["base"], experts, tmp_path / "out")
    assert calls and not list((tmp_path / "out").iterdir())

    # While it is put into the place of another: there is no config.json until all else is there.
    shutil.copytree(places["base"], tmp_path / "out", dirs_exist_ok=True)
    rename, renamed = Path.rename, []

    def watched(path: Path, target: Path):
        assert not (tmp_path / "out" / "config.json").exists()
        renamed.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    merge_experts(places["base"], experts, tmp_path / "out")
    assert renamed[-1] == "config.json" and "model.safetensors" in renamed


def test_tensors_that_are_no_floating_point_are_copied(places, tmp_path):
    for name in ("math", "chat", "base"):
        shutil.copytree(places[name], tmp_path / name)
        file = tmp_path / name / "model.safetensors"
        save_file({**load_file(file), "steps": torch.tensor([7, 2**40 + 1])}, file, {"format": "pt"})
    experts = {name: str(tmp_path / name) for name in ("math", "chat")}
    merge_experts(str(tmp_path / "base"), experts, tmp_path / "out", "ties")
    assert tensors_of(tmp_path / "out")["steps"].tolist() == [7, 2**40 + 1]
    save_file({**load_file(file), "steps": torch.tensor([7, 8])}, tmp_path / "chat/model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"^steps is not floating-point, so it must be the same in all experts"):
        merge_experts(str(tmp_path / "base"), experts, tmp_path / "out", "ties")


# Adapters.


def save_adapter(base: str, directory: Path, seed: int, tie: bool = False, **options) -> str:
    torch.manual_seed(seed)
    settings = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"], **options}
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(str(directory))
    return str(directory)


@pytest.fixture(scope="module")
def adapters(places, tmp_path_factory) -> dict[str, str]:
    """Of different ranks, scales and modules."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        "math": save_adapter(places["base"], root / "math", 1),
        "chat": save_adapter(places["base"], root / "chat", 2, r=2, lora_alpha=7, target_modules=["q_proj", "lm_head"]),
    }


def by_hand(base: str, adapters: dict[str, str], weights: dict[str, float]) -> dict[str, torch.Tensor]:
    """theta_0 + sum_d w_d alpha / r B A, in float64."""
    result = {name: value.double() for name, value in tensors_of(base).items()}
    for domain, directory in adapters.items():
        config = json.loads((Path(directory) / "adapter_config.json").read_text())
        saved = tensors_of(directory)
        for key in saved:
            if ".lora_A." in key:
                a, b = saved[key].double(), saved[key.replace(".lora_A.", ".lora_B.")].double()
                name = key.removeprefix("base_model.model.").replace(".lora_A", "")
                result[name] = result[name] + weights[domain] * config["lora_alpha"] / config["r"] * b @ a
    return result


def logits(state: dict[str, torch.Tensor]) -> torch.Tensor:
    model = tiny().double()
    model.load_state_dict({name: value.double() for name, value in state.items()})
    with torch.no_grad():
        return model(torch.arange(20)[None] % 32).logits


@pytest.mark.parametrize(
    "method, weights, shares",
    [
        ("linear", None, {"math": 0.5, "chat": 0.5}),
        ("linear", {"math": 1, "chat": 3}, {"math": 0.25, "chat": 0.75}),
        ("task_arithmetic", None, {"math": 0.5, "chat": 0.5}),
        ("task_arithmetic", {"math": 0.7, "chat": -0.4}, {"math": 0.7, "chat": -0.4}),
    ],
)
def test_adapters_add_their_products_to_the_base(places, adapters, tmp_path, method, weights, shares):
    merge_experts(places["base"], adapters, tmp_path / "out", method, weights)
    wanted = by_hand(places["base"], adapters, shares)
    assert not torch.allclose(wanted[QUERY], tensors_of(places["base"])[QUERY].double(), atol=1e-2)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    torch.testing.assert_close(logits(found), logits(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_merge_as_the_whole_policies_that_they_stand_for(places, adapters, tmp_path, method):
    whole = {}
    config = Path(places["base"]) / "config.json"
    for domain in adapters:
        state = by_hand(places["base"], {domain: adapters[domain]}, {domain: 1})
        (tmp_path / domain).mkdir()
        shutil.copy(config, tmp_path / domain)
        file = tmp_path / domain / "model.safetensors"
        save_file({name: value.float() for name, value in state.items()}, file, {"format": "pt"})
        whole[domain] = str(tmp_path / domain)
    merge_experts(places["base"], adapters, tmp_path / "adapters", method, density=None)
    merge_experts(places["base"], whole, tmp_path / "whole", method, density=None)
    found, wanted = tensors_of(tmp_path / "adapters"), tensors_of(tmp_path / "whole")
    assert set(found) == set(wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_small_adapters_are_not_rounded_to_the_dtype_of_the_base(places, tmp_path):
    LlamaForCausalLM.from_pretrained(places["base"], dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    small = {}
    for seed, domain in enumerate(("math", "chat")):
        small[domain] = save_adapter(str(tmp_path / "base"), tmp_path / domain, seed)
        file = tmp_path / domain / "adapter_model.safetensors"
        tensors = {name: value * (1e-3 if ".lora_B." in name else 1) for name, value in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
    merge_experts(str(tmp_path / "base"), small, tmp_path / "out", "task_arithmetic", {"math": 1000, "chat": 1000})
    wanted = by_hand(str(tmp_path / "base"), small, {"math": 1000, "chat": 1000})
    for name, tensor in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(tensor.double(), wanted[name], rtol=2**-8, atol=1e-4)


def test_one_adapter_of_any_kind_becomes_a_whole_policy(places, tmp_path):
    """DoRA and a module trained in full, against PEFT's own model; bfloat16 and the tokenizer are the base's."""
    base = LlamaForCausalLM.from_pretrained(places["base"], dtype=torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text("{}")
    directory = save_adapter(
        str(tmp_path / "base"), tmp_path / "adapter", 4, use_dora=True, modules_to_save=["lm_head"]
    )
    merge_experts(str(tmp_path / "base"), {"": directory}, tmp_path / "out")
    adapted = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(places["base"]), directory).merge_and_unload()
    found = tensors_of(tmp_path / "out")
    assert set(found) == set(tensors_of(places["base"]))
    # PEFT's on a base that was not rounded to bfloat16; the differences are roundings.
    for name, wanted in adapted.state_dict().items():
        assert found[name].dtype == torch.bfloat16
        torch.testing.assert_close(found[name].float(), wanted, rtol=2**-6, atol=1e-3)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert (tmp_path / "out" / "tokenizer_config.json").is_file()


# Mistakes.


@pytest.mark.parametrize(
    "method, weights, density, message",
    [
        ("tie", None, None, "method is 'tie', but it must be one of linear, task_arithmetic, ties, dare_linear, "
         "dare_ties. Did you mean 'ties'?"),
        ("ties", {"mth": 1}, None, "weights names 'mth', but there are only experts of math, chat. "
         "Did you mean 'math'?"),
        ("ties", {"math": 1}, None, "weights has none for 'chat', but each expert needs one."),
        ("ties", [1, 2], None, "weights is [1, 2], but it must map each domain to a number."),
        ("ties", {"math": math.nan, "chat": 1}, None, "weights.math is nan, but it must be a finite number."),
        ("ties", {"math": 1, "chat": True}, None, "weights.chat is True, but it must be a finite number."),
        ("ties", {"math": 1, "chat": "1"}, None, "weights.chat is '1', but it must be a finite number."),
        ("linear", {"math": 1, "chat": -1}, None, "weights is {'math': 1, 'chat': -1}, but for linear their sum "
         "must not be 0."),
        ("ties", None, 0, "density is 0, but it must be a number above 0 and at most 1."),
        ("ties", None, 1.1, "density is 1.1, but it must be a number above 0 and at most 1."),
        ("ties", None, math.nan, "density is nan, but it must be a number above 0 and at most 1."),
        ("ties", None, "0.5", "density is '0.5', but it must be a number above 0 and at most 1."),
        ("linear", None, 0.5, "density is 0.5, but linear has none; only ties, dare_linear, dare_ties have one."),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(places, experts, tmp_path, method, weights, density, message):
    with pytest.raises(ValueError) as caught:
        check_merge(method, weights, density, ["math", "chat"])
    assert str(caught.value) == f"strategy.merge.{message}"
    with pytest.raises(ValueError) as caught:
        merge_experts(places["base"], experts, tmp_path / "out", method, weights, density)
    assert str(caught.value) == f"strategy.merge.{message}" and not (tmp_path / "out").exists()


def test_options_that_fit():
    for method in METHODS:
        check_merge(method, None, None, ["math", "chat"])
        check_merge(method, {"math": 0.5, "chat": 0}, None, ["math", "chat"])
    check_merge("task_arithmetic", {"math": 1, "chat": -1}, None, ["math", "chat"])
    check_merge("ties", None, 1, iter(["math"]))
    with pytest.raises(ValueError, match=r"^strategy.merge.experts is empty, but a merge needs at least one expert.$"):
        check_merge("ties", None, 1, [])


def changed(places, tmp_path, name, change) -> str:
    """A copy of a policy after `change` of its tensors."""
    shutil.copytree(places[name], tmp_path / name)
    file = tmp_path / name / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})
    return str(tmp_path / name)


def test_experts_that_do_not_fit_each_other_or_the_base(places, experts, tmp_path):
    def refused(message, base=places["base"], method="ties", **others):
        with pytest.raises(ValueError) as caught:
            merge_experts(base, {**experts, **others}, tmp_path / "out", method)
        assert str(caught.value) == message
        shutil.rmtree(tmp_path / "chat", ignore_errors=True)

    chat = str(tmp_path / "chat")
    lacking = changed(places, tmp_path, "chat", lambda tensors: tensors.pop("lm_head.weight"))
    refused(f"{experts['math']!r} has the tensor lm_head.weight, but {chat!r} has not.", chat=lacking)
    more = changed(places, tmp_path, "chat", lambda tensors: tensors.update(extra=torch.zeros(2)))
    refused(f"{chat!r} has the tensor extra, but {experts['math']!r} has not.", chat=more)
    longer = changed(places, tmp_path, "chat", lambda tensors: tensors.update({"lm_head.weight": torch.zeros(33, 16)}))
    refused(f"lm_head.weight is of shape [32, 16] in {experts['math']!r}, but [33, 16] in {chat!r}.", chat=longer)
    infinite = changed(places, tmp_path, "chat", lambda tensors: tensors[QUERY].fill_(math.inf))
    refused(
        f"the merged {QUERY} is not finite in torch.float32, so an expert or the weights are too large.", chat=infinite
    )
    eight = changed(places, tmp_path, "chat", lambda t: t.update({QUERY: t[QUERY].to(torch.float8_e4m3fn)}))
    refused(f"{QUERY} is of a floating-point type of 8 bits, but quantized weights cannot be merged.", chat=eight)
    base = changed(places, tmp_path, "base", lambda tensors: tensors.pop(QUERY))
    refused(f"{experts['math']!r} has the tensor {QUERY}, but {base!r} has not.", base=base)
    changed_base = tmp_path / "base" / "model.safetensors"
    save_file({**tensors_of(places["base"]), "inv_freq": torch.ones(2)}, changed_base, {"format": "pt"})
    merge_experts(base, experts, tmp_path / "out", "ties")  # more in the base is no mistake
    assert "inv_freq" not in tensors_of(tmp_path / "out")


def test_directories_that_hold_no_expert(places, experts, adapters, tmp_path):
    def refused(message, out=tmp_path / "out", **others):
        with pytest.raises(ValueError, match=message):
            merge_experts(places["base"], {**experts, **others}, out)

    empty = tmp_path / "empty"
    empty.mkdir()
    refused(r"^strategy.merge.experts.chat is 'nowhere', but that is not a directory.$", chat="nowhere")
    refused(r"empty' holds neither model.safetensors nor model.safetensors.index.json, so", chat=str(empty))
    refused(
        r"^strategy.merge.experts has adapters \(chat\) and full weights \(math\), but all must be of one form.$",
        chat=adapters["chat"],
    )
    refused(r"^the merged policy is to be saved in '.*math', which is the directory of one it", out=experts["math"])
    (empty / "model.safetensors").write_bytes(b"nothing")
    refused(r"empty' has weights in model.safetensors, which cannot be read: ", chat=str(empty))
    shutil.copytree(experts["math"], tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    refused(r"bare' holds no config.json of a causal language model, so it is no policy.$", math=str(tmp_path / "bare"))


def test_adapters_that_cannot_be_merged(places, adapters, tmp_path):
    torch.manual_seed(0)
    tiny(tie=True).save_pretrained(tmp_path / "tied")
    head = {"math": adapters["chat"]}
    with pytest.raises(
        ValueError, match=r"^the adapter '.*' cannot be merged into '.*tied': it adapts lm_head, whose weight"
    ):
        merge_experts(str(tmp_path / "tied"), head, tmp_path / "out")
    config = LlamaConfig(
        vocab_size=32, hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "wider")
    with pytest.raises(ValueError, match=r"^the adapter '.*' cannot be merged into '.*wider': .*size mismatch"):
        merge_experts(str(tmp_path / "wider"), head, tmp_path / "out")
