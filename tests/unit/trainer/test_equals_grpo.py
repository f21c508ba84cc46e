"""Invariants 1 and 2 in one process: our gradients and parameters against plain GRPOTrainer on the same rollouts."""

import pytest
import torch
from accelerate.utils import is_compiled_module
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

from mgs_trl import MGSTrainer
from tests.support.reference import relative_error
from tests.support.rollouts import DOMAINS, ScriptedRollouts, prompts

LOSSES = ("grpo", "dapo", "dr_grpo", "bnpo")
# Micro-batches of 1, 3 and 8 rows in a window of 24 rows, 8 of each domain: those of 3 straddle every domain border.
MICRO_BATCHES = {1: 24, 3: 8, 8: 3, 24: 1}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert relative_error(ours[name], value) <= tolerance, name


@pytest.mark.parametrize("micro_batch", MICRO_BATCHES)
@pytest.mark.parametrize("loss_type", LOSSES)
def test_domain_gradients_sum_to_grpo_gradient(ours, reference, loss_type, micro_batch):
    settings = {
        "loss_type": loss_type,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": MICRO_BATCHES[micro_batch],
        "beta": 0.05,
        "entropy_coef": 0.1,
    }
    theirs = reference(**settings)
    measured = ours(surgery="observe", **settings)
    assert len(measured.domain_gradients[0]) == 3
    logged, expected = (run.trainer.state.log_history[0]["loss"] for run in (measured, theirs))
    assert logged == pytest.approx(expected, rel=1e-5)
    summed = {n: sum(g[n].double() for g in measured.domain_gradients[0].values()) for n in theirs.gradients[0]}
    assert_same(summed, theirs.gradients[0])
    assert_same(measured.gradients[0], theirs.gradients[0])


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo", "bnpo", "sapo", "cispo"])
def test_each_domain_gradient_is_that_of_its_rows_alone(ours, reference, loss_type):
    settings = {"loss_type": loss_type, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 8}
    measured = ours(surgery="observe", **settings).domain_gradients[0]
    for d, domain in enumerate(DOMAINS):
        alone = reference(only_domain=domain, **settings).gradients[0]
        assert_same(measured[d], alone)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_grad_norm": 0.05},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 8},
        {"gradient_checkpointing": False, "beta": 0.1},
    ],
    ids=str,
)
def test_parameters_after_five_steps_equal_grpo(ours, reference, settings):
    settings = {"max_steps": 5, "learning_rate": 1e-3, **settings}
    theirs = reference(dataset=prompts(12), **settings).parameters()
    assert_same(ours(dataset=prompts(12), surgery="none", **settings).parameters(), theirs)
    assert_same(ours(dataset=prompts(12), surgery="observe", **settings).parameters(), theirs)


def test_straddling_entropy_bonus_needs_its_own_scale(ours, reference):
    """The test above can fail: without the bonus's own scale, a straddling micro-batch is wrong by more than 1e-3."""

    class Unscaled(MGSTrainer):
        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            if self._block is not None:
                self._block.token_scale = self._block.loss_scale
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    settings = {
        "loss_type": "grpo",
        "per_device_train_batch_size": 24,
        "gradient_accumulation_steps": 1,
        "entropy_coef": 1.0,
    }
    theirs = reference(**settings).gradients[0]["model.embed_tokens.weight"]
    wrong = ours(surgery="none", trainer_class=Unscaled, **settings).gradients[0]["model.embed_tokens.weight"]
    assert relative_error(wrong, theirs) > 1e-3


def test_purity_other_rows_leave_a_domain_gradient_unchanged(ours):
    """Invariant 2: other tokens in the other domains' rows, as many of them, change nothing, bit for bit."""
    data = prompts(10)
    others = {p: "other" for p, d in zip(data["prompt"], data["domain"], strict=True) if d != "math"}
    settings = {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 8,
        "beta": 0.05,
        "entropy_coef": 0.1,
    }
    before = ours(surgery="observe", **settings).domain_gradients[0]
    after = ours(surgery="observe", rollouts=ScriptedRollouts(prefix=others), **settings).domain_gradients[0]
    math, chat = DOMAINS.index("math"), DOMAINS.index("chat")
    assert any(not torch.equal(before[chat][n], after[chat][n]) for n in before[chat])
    for name in before[math]:
        assert torch.equal(before[math][name], after[math][name]), name


def test_one_domain_or_no_column_is_grpo_trainer(ours, tiny_policy):
    """Invariant 3, T = 1 (F10): the very same parameters, shuffling included."""
    from trl import GRPOTrainer

    data = prompts(24, domains=("math",))
    one = ours(dataset=data, max_steps=2).parameters()
    plain = ours(dataset=data.remove_columns("domain"), max_steps=2).parameters()
    theirs = ours(dataset=data.remove_columns("domain"), max_steps=2, trainer_class=_as_trl(GRPOTrainer)).parameters()
    for name in theirs:
        assert torch.equal(one[name], theirs[name]) and torch.equal(plain[name], theirs[name])


def test_compiled_model_has_the_gradients_of_the_model(ours):
    """The eager backend traces the model and calls no compiler."""
    plain = ours(dataset=prompts(12), max_steps=2)
    compiled = ours(dataset=prompts(12), max_steps=2, torch_compile=True, torch_compile_backend="eager")
    assert is_compiled_module(compiled.trainer.model_wrapped)
    assert compiled.domain_gradients[0].keys() == plain.domain_gradients[0].keys() == {0, 1, 2}
    for d, expected in plain.domain_gradients[0].items():
        assert_same(compiled.domain_gradients[0][d], expected)
    assert_same(compiled.parameters(), plain.parameters())


def _as_trl(trainer_class):
    class Plain(trainer_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._engine = self._collector = None

        def _prepare_surgery(self, model):
            raise AssertionError("plain GRPO has no surgery")

    return Plain


@pytest.fixture(scope="module")
def routed_policy(tiny_policy, tmp_path_factory) -> str:
    """Two layers of four experts, whose router has an auxiliary loss large enough to matter."""
    path = str(tmp_path_factory.mktemp("routed"))
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=161, hidden_size=32, intermediate_size=44, moe_intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2,
        max_position_embeddings=128, pad_token_id=0, eos_token_id=1, output_router_logits=True,
        router_aux_loss_coef=0.5,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).to(torch.float32).save_pretrained(path)
    AutoTokenizer.from_pretrained(tiny_policy).save_pretrained(path)
    return path


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "bnpo"])
def test_routers_auxiliary_loss_is_grpos(ours, reference, routed_policy, loss_type):
    """A mean over a micro-batch's tokens, so it is the same where no micro-batch holds two domains."""
    settings = {"loss_type": loss_type, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 3}
    theirs = reference(policy=routed_policy, **settings)
    measured = ours(policy=routed_policy, surgery="observe", **settings)
    assert any("gate" in name for name in theirs.gradients[0])
    assert_same(measured.gradients[0], theirs.gradients[0])
    without = ours(policy=routed_policy, surgery="observe", **settings, router_aux_loss_coef=0.0)
    gate = next(name for name in theirs.gradients[0] if "gate" in name)
    assert relative_error(without.gradients[0][gate], theirs.gradients[0][gate]) > 0.1
