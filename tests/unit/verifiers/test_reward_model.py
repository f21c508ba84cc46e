"""The reward model in process against transformers called row by row, without padding."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from mgs_trl.verifiers import RewardModelVerifier, VerifierError, build_verifier
from mgs_trl.verifiers.reward_model import by_length

TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
VOCABULARY = ["<unk>", "<s>", "</s>", ":", *"abcdefghijklmnopqrstuvwxyz", "user", "assistant", "system"]


def tokenizer(template=TEMPLATE, extra=0):
    words = {word: index for index, word in enumerate([*VOCABULARY, *(f"extra{i}" for i in range(extra))])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=10**9
    )
    made.chat_template = template
    return made


def config(**options):
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    }
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    tokens = {"vocab_size": len(VOCABULARY), "bos_token_id": 1, "eos_token_id": 2}
    return LlamaConfig(**{**sizes, **heads, **tokens, "num_labels": 1, **options})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LlamaForSequenceClassification(config()).eval()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("reward_model")
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return str(path)


def reference(model, text, special=False):
    """The classifier's logit on `text` alone."""
    ids = tokenizer()(text, add_special_tokens=special, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = model.model(input_ids=ids).last_hidden_state[0, -1]
        return model.score(hidden).item()


def chat(*contents):
    roles = ["user", "assistant"] * len(contents)
    return "".join(f"<s>{role}: {content}</s>" for role, content in zip(roles, contents, strict=False))


def test_scores_equal_each_row_scored_alone(model, saved):
    verifier = RewardModelVerifier(model=saved, batch_tokens=40)
    prompts = ["a b", [{"role": "user", "content": "c"}], "d e f g", "h"]
    completions = ["x", [{"role": "assistant", "content": "y z a b c d e f"}], "z", "<think>q</think> w"]
    expected = [
        reference(model, chat("a b", "x")),
        reference(model, chat("c", "y z a b c d e f")),
        reference(model, chat("d e f g", "z")),
        reference(model, chat("h", "w")),
    ]
    assert len(set(expected)) == 4
    assert verifier(prompts, completions) == pytest.approx(expected, rel=1e-5)


def test_a_module_with_its_tokenizer_and_no_chat_template(model):
    verifier = RewardModelVerifier(model=model, tokenizer=tokenizer(template=None))
    prompts = ["a b ", [{"role": "user", "content": "a b"}]]
    completions = ["x", [{"role": "assistant", "content": "x"}]]
    expected = reference(model, "a b x", special=True)
    assert verifier(prompts, completions) == pytest.approx([expected, expected], rel=1e-5)
    with pytest.raises(ValueError, match="tokenizer must be given"):
        RewardModelVerifier(model=model)


@pytest.mark.parametrize("own", [None, 0, 2])
def test_padding_changes_no_score_whatever_the_models_padding_id(own):
    """With the end of text as padding, a batch would score another token than the row alone."""
    torch.manual_seed(1)
    model = LlamaForSequenceClassification(config(pad_token_id=own)).eval()
    prompts, completions = ["a", "b c d", "e f"], ["x", "y z a b c", "w"]
    batched = RewardModelVerifier(model=model, tokenizer=tokenizer())(prompts, completions)
    alone = []
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = tokenizer()(chat(prompt, completion), add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            alone.append(model(input_ids=ids).logits.item())
    assert batched == pytest.approx(alone, rel=1e-5, abs=1e-7)
    assert model.config.pad_token_id == own


def test_only_rows_of_its_own_domain_reach_the_model(model):
    seen = []

    def spy(_module, _args, kwargs):
        seen.append(tuple(kwargs["input_ids"].shape))

    handle = model.register_forward_pre_hook(spy, with_kwargs=True)
    try:
        verifier = RewardModelVerifier("chat", model=model, tokenizer=tokenizer())
        scores = verifier(["a"] * 4, ["x"] * 4, domain=["math", "chat", "math", "if"])
        assert [score is None for score in scores] == [True, False, True, True]
        assert verifier(["a"], ["x"], domain=["math"]) == [None]
    finally:
        handle.remove()
    assert [shape[0] for shape in seen] == [1]


def test_r9_a_tokenizer_beyond_the_embeddings_is_refused_at_load(model, saved):
    for verifier in (
        RewardModelVerifier(model=model, tokenizer=tokenizer(extra=5)),
        RewardModelVerifier(model=saved, tokenizer=tokenizer(extra=5)),
    ):
        with pytest.raises(ValueError, match="embeddings but its tokenizer's ids go up to"):
            verifier.load()


def test_r9_other_than_one_label_is_refused_at_load(tmp_path):
    two = LlamaForSequenceClassification(config(num_labels=2))
    with pytest.raises(ValueError, match="must have one label, got 2"):
        RewardModelVerifier(model=two, tokenizer=tokenizer()).load()
    two.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must have one label, got 2"):
        RewardModelVerifier(model=str(tmp_path)).load()


def test_a_language_model_without_a_trained_score_head_is_refused(tmp_path):
    LlamaForCausalLM(config()).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.num_labels == 1
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path) is not None  # transformers only warns
    with pytest.raises(ValueError, match="lacks trained weights"):
        RewardModelVerifier(model=str(tmp_path)).load()


def test_long_conversations_lose_their_beginning_and_are_counted(model):
    verifier, counts = RewardModelVerifier(model=model, tokenizer=tokenizer(), max_length=6), {}
    long, short = " ".join("abcdefghij"), "x"
    scores = verifier(["a", "a"], [long, short], log_metric=counts.__setitem__)
    ids = tokenizer()(chat("a", long), add_special_tokens=False)["input_ids"][-6:]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits.item()
    assert scores[0] == pytest.approx(expected, rel=1e-5)
    assert counts["verifier/reward_model/truncated"] == 2.0


def roberta(positions=12, padding=3):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"vocab_size": len(VOCABULARY), "pad_token_id": padding, "max_position_embeddings": positions}
    return RobertaForSequenceClassification(RobertaConfig(**sizes, **tokens, num_labels=1)).eval()


def test_a_model_whose_positions_begin_behind_padding_takes_that_many_tokens_fewer_and_keeps_the_first_token():
    model, made, counts = roberta(positions=12, padding=3), tokenizer(template=None), {}
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    verifier = RewardModelVerifier(model=model, tokenizer=made)
    scores = verifier(["a b ", "a b "], ["c d e f g h i j", "c d"], log_metric=counts.__setitem__)
    rows = [
        tokenizer()(text, return_tensors="pt")["input_ids"] for text in ("<s> e f g h i j </s>", "<s> a b c d </s>")
    ]
    with torch.no_grad():
        expected = [model(input_ids=row).logits.item() for row in rows]
    assert scores == pytest.approx(expected, rel=1e-5)
    assert counts["verifier/reward_model/truncated"] == 1.0


def test_more_tokens_than_the_model_has_positions_for_are_refused_at_load():
    verifier = RewardModelVerifier(model=roberta(positions=12, padding=3), tokenizer=tokenizer(), max_length=9)
    with pytest.raises(ValueError, match=r"max_length of 'reward_model' must be at most 8, the positions .* got 9"):
        verifier.load()


def test_a_model_that_scores_padding_is_refused_at_load():
    sizes = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32, "vocab_size": len(VOCABULARY)}
    model = XLNetForSequenceClassification(XLNetConfig(**sizes, num_labels=1))
    with pytest.raises(ValueError, match="must score its last token that is not padding"):
        RewardModelVerifier(model=model, tokenizer=tokenizer()).load()


@pytest.mark.parametrize(
    ("options", "mapping"),
    [
        ({"clip": [-0.01, 0.01]}, lambda s: min(max(s, -0.01), 0.01)),
        ({"shift": 1.0, "scale": 2.0}, lambda s: (s - 1) / 2),
        ({"squash": "sigmoid"}, lambda s: torch.tensor(s).sigmoid().item()),
        ({"squash": "tanh", "scale": 0.1}, lambda s: torch.tensor(s / 0.1).tanh().item()),
    ],
)
def test_clipping_and_normalisation(model, options, mapping):
    ((verifier, _),) = build_verifier({"reward_model": {"model": model, "tokenizer": tokenizer(), **options}}, "chat")
    raw = reference(model, chat("a", "x"))
    assert verifier(["a"], ["x"]) == pytest.approx([mapping(raw)], rel=1e-4)


def test_r10_out_of_memory_halves_the_batch(model, caplog):
    def too_big(_module, _args, kwargs):
        if kwargs["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError("too big")

    verifier = RewardModelVerifier(model=model, tokenizer=tokenizer())
    prompts, completions = ["a"] * 7, list("abcdefg")
    expected = verifier(prompts, completions)
    handle = model.register_forward_pre_hook(too_big, with_kwargs=True)
    try:
        assert verifier(prompts, completions) == pytest.approx(expected, rel=1e-5)
    finally:
        handle.remove()
    assert "halving the batch" in caplog.text


def test_r5_a_nan_score_is_an_error_or_none(model):
    def poison(_module, _args, output):
        output.logits[0, 0] = float("nan")

    handle = model.register_forward_hook(poison)
    try:
        with pytest.raises(VerifierError, match=r"reward_model.*returned nan"):
            RewardModelVerifier(model=model, tokenizer=tokenizer())(["a"], ["x"])
        lenient = RewardModelVerifier(model=model, tokenizer=tokenizer(), on_error="none")
        scores = lenient(["a", "a"], ["x", "y"])
    finally:
        handle.remove()
    assert sorted(score is None for score in scores) == [False, True]


def test_a_conversation_that_the_template_refuses_is_named_or_none(model):
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    system = [{"role": "system", "content": "b"}, {"role": "user", "content": "c"}]
    prompts, completions, counts = ["a", system, "d"], ["x", "y", "z"], {}
    options = {"model": model, "tokenizer": tokenizer(refuses + TEMPLATE)}
    with pytest.raises(VerifierError, match="'chat', sample 1: raised TemplateError: System role not supported"):
        RewardModelVerifier("chat", **options)(prompts, completions)
    lenient = RewardModelVerifier("chat", **options, on_error="none")
    scores = lenient(prompts, completions, log_metric=counts.__setitem__)
    expected = [reference(model, chat("a", "x")), None, reference(model, chat("d", "z"))]
    assert scores == [None if one is None else pytest.approx(one, rel=1e-5) for one in expected]
    assert counts["verifier/chat/reward_model/errors"] == 1.0


def test_batches_by_length_hold_every_row_once_within_the_budget():
    lengths = [3, 50, 7, 7, 1, 20, 19, 2]
    batches = list(by_length(lengths, 40))
    assert sorted(row for batch in batches for row in batch) == list(range(8))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= 40
    assert len(batches) < len(lengths)


def test_r12_an_empty_answer_is_scored(model):
    scores = RewardModelVerifier(model=model, tokenizer=tokenizer())(["a", ""], ["<think> no end", ""])
    assert scores == pytest.approx([reference(model, chat("a", "")), reference(model, chat("", ""))], rel=1e-5)


@pytest.fixture(params=["fsdp", "zero3"])
def engine(request, monkeypatch, tmp_path):
    """What the policy's engine leaves set in the process in which the reward model is loaded."""
    if request.param == "zero3":
        from transformers.integrations.deepspeed import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

        kept = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
        yield is_deepspeed_zero3_enabled
        del kept
        return
    from transformers.distributed.fsdp import is_fsdp_enabled

    for name in ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("LOCAL_RANK", "1")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield is_fsdp_enabled
    torch.distributed.destroy_process_group()


def test_the_policys_engine_leaves_the_reward_model_whole(engine, model, saved):
    """Under ZeRO-3 it was cut into shards, under FSDP all zeros on every rank but the first (both silently wrong)."""
    assert engine()
    verifier = RewardModelVerifier(model=saved)
    scores = verifier([[{"role": "user", "content": "a b"}]], [[{"role": "assistant", "content": "c d"}]])
    assert scores == [pytest.approx(reference(model, chat("a b", "c d")), rel=1e-5)]
    assert engine()  # the policy's own models are loaded as the engine wants
