"""Building the miniature: the files, that they load, that they come out the same, and success rates in range."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mgs_trl.study.miniature import build_miniature, construct, miniature_dir
from mgs_trl.study.miniature.construct import RANGE

FILES = {
    "policy/model.safetensors",
    "policy/generation_config.json",
    "policy/tokenizer.json",
    "policy/chat_template.jinja",
    "reward_model/model.safetensors",
    "reward_model/tokenizer.json",
    *(f"data/{d}_{part}.jsonl" for d in ("math", "chat", "instruction_following") for part in ("train", "heldout")),
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_miniature(tmp_path_factory.mktemp("quick") / "miniature", seed=1, size="quick")


def test_a_build_holds_its_files_and_nothing_is_left_beside_it(quick: Path) -> None:
    assert {str(path.relative_to(quick)) for path in quick.rglob("*") if path.is_file()} >= FILES
    assert list(quick.parent.iterdir()) == [quick]
    assert not list(quick.rglob("*.bin"))
    assert not list(quick.rglob("*.pt"))


def test_a_finished_build_is_found_without_loading_torch(quick: Path) -> None:
    code = (
        "import sys; from mgs_trl.study.miniature import build_miniature\n"
        f"build_miniature({str(quick)!r}, seed=1, size='quick'); assert 'torch' not in sys.modules"
    )
    before = (quick / "manifest.json").stat().st_mtime_ns
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert (quick / "manifest.json").stat().st_mtime_ns == before


def test_the_command_prints_the_directory_and_the_rates(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mgs_trl.study.miniature.__main__ import show

    show(json.loads((quick / "manifest.json").read_text()))
    printed = capsys.readouterr().out
    assert all(domain in printed for domain in ("math", "chat", "instruction_following"))


def test_policy_and_reward_model_load_by_the_auto_classes(quick: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from mgs_trl.study.miniature.tokenizer import build_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(quick / "policy")
    text = '* The golden sea sings, 12 \\boxed{34} "quite"\n'
    assert tokenizer(text)["input_ids"] == build_tokenizer()(text)["input_ids"]
    policy = AutoModelForCausalLM.from_pretrained(quick / "policy")
    assert policy.dtype is torch.float32
    assert 1_000_000 <= policy.num_parameters() <= 3_000_000
    assert policy.generation_config.eos_token_id in (tokenizer.eos_token_id, [tokenizer.eos_token_id])
    assert policy.config.head_dim % 32 == 0  # vLLM's CPU attention
    assert policy.config.vocab_size == len(tokenizer)
    reward_model = AutoModelForSequenceClassification.from_pretrained(quick / "reward_model")
    assert reward_model.config.num_labels == 1
    assert AutoTokenizer.from_pretrained(quick / "reward_model").chat_template == tokenizer.chat_template


def test_the_same_seed_builds_the_same_bytes(quick: Path, tmp_path: Path) -> None:
    again = build_miniature(tmp_path / "again", seed=1, size="quick")
    for name in FILES:
        assert (again / name).read_bytes() == (quick / name).read_bytes(), name


def test_a_build_leaves_the_callers_torch_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def work(directory: Path, seed: int, size: str) -> dict[str, Any]:
        with construct._quietly():
            torch.rand(3)
            directory.mkdir(parents=True)
        return {}

    monkeypatch.setattr(construct, "construct", work)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    build_miniature(tmp_path / "miniature", size="quick")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_an_interrupted_build_is_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(directory: Path, seed: int, size: str) -> dict[str, Any]:
        directory.mkdir(parents=True)
        raise KeyboardInterrupt

    def finished(directory: Path, seed: int, size: str) -> dict[str, Any]:
        directory.mkdir(parents=True)
        return {"seconds": 1}

    target = tmp_path / "cache" / "miniature"
    monkeypatch.setattr(construct, "construct", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_miniature(target)
    assert list(target.parent.iterdir()) == []
    monkeypatch.setattr(construct, "construct", finished)
    assert json.loads((build_miniature(target) / "manifest.json").read_text())["seconds"] == 1
    monkeypatch.setattr(construct, "construct", interrupted)
    assert build_miniature(target) == target
    with pytest.raises(KeyboardInterrupt):
        build_miniature(target, force=True)
    assert (target / "manifest.json").exists(), "a build that fails must leave the one before it"


def test_refusals_name_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"directory is .* holds no miniature"):
        build_miniature(tmp_path, force=True)
    with pytest.raises(ValueError, match="seed is -1"):
        build_miniature(tmp_path / "new", seed=-1)
    with pytest.raises(ValueError, match="size is 'huge'; it must be one of full, small, quick"):
        build_miniature(tmp_path / "new", size="huge")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE is 2"):
        build_miniature(tmp_path / "new")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_the_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MGS_TRL_CACHE", str(tmp_path))
    assert miniature_dir(seed=7) == tmp_path / "miniature-v1-seed7"
    monkeypatch.delenv("MGS_TRL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert miniature_dir() == tmp_path / ".cache" / "mgs_trl" / "miniature-v1-seed0"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_full_build_brings_every_domain_into_range(tmp_path: Path) -> None:
    """Measured anew from the files, with other samples than the build's own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mgs_trl.study.miniature import measure

    built = build_miniature(tmp_path / "miniature")
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["reward_model_accuracy"] >= 0.85
    rows = {
        domain: [json.loads(line) for line in (built / "data" / f"{domain}_heldout.jsonl").open()]
        for domain in ("math", "chat", "instruction_following")
    }
    model, tokenizer = (auto.from_pretrained(built / "policy") for auto in (AutoModelForCausalLM, AutoTokenizer))
    score = measure.scorers(built / "reward_model")
    rates, _ = measure.success_rates(model, tokenizer, rows, score, manifest["chat_threshold"], 99, length=48)
    for domain, rate in rates.items():
        assert RANGE[0] <= manifest["success_rate"][domain] <= RANGE[1]
        assert RANGE[0] - 0.12 <= rate <= RANGE[1] + 0.12, domain  # 128 other samples: three standard errors
