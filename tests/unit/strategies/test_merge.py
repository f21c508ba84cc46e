"""Merging saved policies: their files, dtypes and tied tensors, and what is refused."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from mgs_trl.strategies.merge import merge_experts
from mgs_trl.strategies.vectors import METHODS
from tests.unit.strategies.conftest import QUERY, changed, moved, tensors_of, tiny


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
