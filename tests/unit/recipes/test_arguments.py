"""From a recipe to MGSConfig fields: strategies, shares, sampling, types, and what is refused."""

import dataclasses

import pytest

from mgs_trl.arguments import build_config, check_trainer_keys, trainer_fields
from mgs_trl.build import check_quotas, write_all
from mgs_trl.domains.datasets import DomainRows
from mgs_trl.domains.templates import find_template
from mgs_trl.recipe import parse_recipe
from mgs_trl.rollouts.sampling import parse_sampling


def recipe(trainer=None, domains=None, **top):
    """A recipe of two domains; `domains` adds keys to each."""
    extra = domains or {}
    content = {name: {"dataset": "x.jsonl", "verifier": "math", **extra.get(name, {})} for name in ("chat", "math")}
    fields = {"bf16": False, "use_cpu": True, "output_dir": "unused", **(trainer or {})}
    return parse_recipe({"model": "m", "domains": content, "rollout": "transformers", "trainer": fields, **top})


@pytest.mark.parametrize(
    ("strategy", "surgery", "granularity"),
    [
        ("mgs", "pcgrad", "block"),
        ("global_surgery", "pcgrad", "global"),
        ("mixed", "none", "block"),
        ("observe", "observe", "block"),
    ],
)
def test_strategies(strategy, surgery, granularity):
    config = build_config(recipe(strategy=strategy))
    assert (config.surgery, config.granularity) == (surgery, granularity)


@pytest.mark.parametrize(
    ("strategy", "trainer"),
    [
        ("mgs", {"granularity": "tensor"}),
        ("mgs", {"surgery": "upgrad"}),
        ("mixed", {"balance": "domain"}),
        ("observe", {"granularity": "layer"}),
        ("global_surgery", {"surgery": "mgda"}),
    ],
)
def test_trainer_fields_refine_a_strategy(strategy, trainer):
    config = build_config(recipe(trainer, strategy=strategy))
    assert all(getattr(config, name) == value for name, value in trainer.items())


@pytest.mark.parametrize(
    ("strategy", "trainer"),
    [
        ("mgs", {"granularity": "global"}),
        ("mgs", {"surgery": "none"}),
        ("global_surgery", {"granularity": "layer"}),
        ("mixed", {"surgery": "pcgrad"}),
        ("observe", {"surgery": "pcgrad"}),
    ],
)
def test_trainer_fields_that_make_it_another_strategy_are_refused(strategy, trainer):
    ((name, value),) = trainer.items()
    with pytest.raises(ValueError, match=rf"trainer\.{name} is '{value}', which contradicts strategy '{strategy}'"):
        trainer_fields(recipe(trainer, strategy=strategy))


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ({"learning_rat": 1}, ["learning_rat", "Did you mean 'learning_rate'?"]),
        ({"granulrity": "block"}, ["granulrity", "granularity"]),
        ({"granularity": "blok"}, ["granularity", "'blok'", "'block'"]),
        ({"surgery": "pcgrd"}, ["surgery", "'pcgrd'", "'pcgrad'"]),
        ({"surgery_exclude": ["mpl"]}, ["surgery_exclude", "'mpl'", "'mlp'"]),
        ({"learning_rate": "fast"}, ["learning_rate", "'fast'", "float"]),
        ({"max_steps": 2.5}, ["max_steps", "2.5", "int"]),
        ({"bf16": "yes"}, ["bf16", "'yes'", "bool"]),
        ({"max_steps": True}, ["max_steps", "True", "int"]),
        ({"surgery_exclude": "mlp"}, ["surgery_exclude", "'mlp'", "list"]),
        ({"lr_scheduler_type": "constnt"}, ["lr_scheduler_type", "constnt", "Did you mean 'constant'?"]),
        ({"num_generations": 7}, ["num_generations", "7"]),
        ({"gramian_ema": 1.0}, ["gramian_ema", "1.0"]),
        ({"mixture": {"math": 1.0}}, ["mixture", "share"]),
        ({"use_vllm": True}, ["use_vllm", "rollout"]),
        ({"reward_weights": [1.0]}, ["reward_weights", "weight beside each verifier"]),
        ({"model_init_kwargs": {}}, ["model_init_kwargs", "model.kwargs"]),
        ({"resume_from_checkpoint": "out/checkpoint-2"}, ["resume_from_checkpoint", "--resume"]),
        ({"do_train": True}, ["do_train", "the command"]),
    ],
)
def test_bad_trainer_fields_are_one_sentence(trainer, words):
    with pytest.raises(ValueError) as caught:
        build_config(recipe(trainer))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_every_field_with_its_own_default_is_accepted():
    """The type check refuses no default of MGSConfig (an independent list of legal values of every field)."""
    from mgs_trl.arguments import ELSEWHERE
    from mgs_trl.config import MGSConfig

    defaults = {f.name: f.default for f in dataclasses.fields(MGSConfig) if f.default is not dataclasses.MISSING}
    check_trainer_keys({name: value for name, value in defaults.items() if name not in ELSEWHERE})


@pytest.mark.parametrize("strategy", ["mixd", "sequentiel"])
def test_unknown_strategies(strategy):
    with pytest.raises(ValueError, match=f"strategy is '{strategy}'"):
        trainer_fields(recipe(strategy=strategy))


def test_shares_become_the_mixture():
    fields = trainer_fields(recipe(domains={"math": {"share": 3}}))
    assert fields["mixture"] == {"chat": 1.0, "math": 3.0}


def test_code_is_not_trusted_and_weights_are_safetensors():
    fields = trainer_fields(recipe())
    assert fields["trust_remote_code"] is False
    assert fields["model_init_kwargs"] == {"use_safetensors": True}


def test_model_settings_reach_from_pretrained():
    model = {"name_or_path": "m", "dtype": "bfloat16", "revision": "r", "kwargs": {"use_cache": False}}
    assert trainer_fields(recipe(model=model))["model_init_kwargs"] == {
        "use_safetensors": True,
        "dtype": "bfloat16",
        "revision": "r",
        "use_cache": False,
    }


# --- quotas: what prompts per step mean on several ranks ---


@pytest.mark.parametrize(("ranks", "quotas"), [(1, {"chat": 1, "math": 3}), (8, {"chat": 8, "math": 24})])
def test_quotas_follow_the_number_of_ranks(ranks, quotas):
    planned = recipe({"per_device_train_batch_size": 32, "num_generations": 8}, {"math": {"share": 3}})
    assert check_quotas(planned, build_config(planned, ranks=ranks)) == quotas


def test_a_share_too_small_for_the_batch_names_the_smallest_batch():
    planned = recipe({"per_device_train_batch_size": 32, "num_generations": 8}, {"math": {"share": 100}})
    with pytest.raises(ValueError, match=r"'chat' no prompt in a window of 4 prompts.* 51 prompts"):
        check_quotas(planned, build_config(planned))


# --- sampling ---


def test_sampling_that_all_domains_share_is_the_trainers():
    sampling = {"sampling": {"temperature": 0.7, "top_p": 0.9}}
    fields = trainer_fields(recipe(domains={"math": sampling, "chat": sampling}))
    assert (fields["temperature"], fields["top_p"], fields["top_k"]) == (0.7, 0.9, 0)


def test_a_domain_may_repeat_the_trainers_sampling():
    fields = trainer_fields(recipe({"temperature": 0.7}, {"math": {"sampling": {"temperature": 0.7}}}))
    assert fields["temperature"] == 0.7


def test_different_sampling_goes_to_each_domain():
    domains = {"math": {"sampling": {"temperature": 0.7, "max_completion_length": 500}}}
    fields = trainer_fields(recipe({"max_completion_length": 100}, domains))
    assert fields["sampling"]["math"]["temperature"] == 0.7 and fields["sampling"]["chat"]["temperature"] == 1.0
    assert fields["sampling"]["math"]["max_completion_length"] == 500
    assert fields["sampling"]["chat"]["max_completion_length"] == 100
    assert fields["max_completion_length"] == 500


def test_what_domains_share_is_the_trainers_where_other_settings_differ():
    domains = {"math": {"sampling": {"temperature": 0.7}}}
    domains["chat"] = {"sampling": {"temperature": 0.7, "max_completion_length": 100}}
    fields = trainer_fields(recipe(domains=domains))
    assert (fields["temperature"], fields["max_completion_length"]) == (0.7, 512)
    assert [fields["sampling"][name]["max_completion_length"] for name in ("math", "chat")] == [512, 100]


def test_completions_need_a_limit():
    with pytest.raises(ValueError, match=r"trainer.max_completion_length is None, but the domains \['math'\] need"):
        trainer_fields(recipe({"max_completion_length": None}, {"chat": {"sampling": {"max_completion_length": 9}}}))
    limits = {name: {"sampling": {"max_completion_length": length}} for name, length in (("math", 7), ("chat", 9))}
    fields = trainer_fields(recipe({"max_completion_length": None}, limits))
    assert fields["max_completion_length"] == 9 and fields["sampling"]["math"]["max_completion_length"] == 7


def test_sampling_names_the_domains_that_are_trained_or_evaluated():
    alone = {"single": {"domain": "math"}}
    domains = {"math": {"sampling": {"temperature": 0.7}}, "chat": {"sampling": {"max_completion_length": 999}}}
    fields = trainer_fields(recipe(strategy=alone, domains=domains))
    assert "sampling" not in fields
    assert (fields["temperature"], fields["max_completion_length"]) == (0.7, 512)  # TRL's own default
    domains["chat"]["eval_dataset"] = "y.jsonl"
    fields = trainer_fields(recipe(strategy=alone, domains=domains))
    assert sorted(fields["sampling"]) == ["chat", "math"] and fields["max_completion_length"] == 999


@pytest.mark.parametrize("flags", [["--check"], []], ids=["check", "train"])
def test_one_domain_trains_whatever_the_sampling_of_those_that_are_not_used(miniature, tmp_path, flags):
    from mgs_trl.train import main
    from tests.unit.recipes.test_train import SMALL

    command = ["miniature", *SMALL, "trainer.max_steps=1", f"trainer.output_dir={tmp_path}"]
    command += ["strategy={single: {domain: math}}", "~domains.chat.eval_dataset"]
    command += ["~domains.instruction_following.eval_dataset", "domains.math.sampling.stop=[]"]
    command += [f"domains.{name}.template=zero_think" for name in ("math", "chat")]  # with a stop string
    assert main([*command, *flags]) == 0
    assert (tmp_path / "model.safetensors").exists() == (not flags)


def test_a_domain_that_is_not_used_needs_no_vllm():
    alone = {"single": {"domain": "math"}}
    assert "sampling" not in trainer_fields(recipe(strategy=alone, domains={"chat": {"template": "zero_think"}}))


def test_stop_strings_come_from_the_template_and_need_vllm():
    think = {"template": "zero_think"}
    with pytest.raises(ValueError, match=r"</response>.*rollout: vllm"):
        trainer_fields(recipe(domains={"math": think, "chat": think}))
    without = {"template": "zero_think", "sampling": {"stop": []}}
    assert "sampling" not in trainer_fields(recipe(domains={"math": without, "chat": without}))


def test_stop_strings_reach_vllm():
    pytest.importorskip("vllm")
    fields = trainer_fields(recipe(rollout="vllm", domains={"math": {"template": "zero_think"}}))
    assert fields["use_vllm"] is True
    assert {name: values["stop"] for name, values in fields["sampling"].items()} == {
        "math": ["</response>"],
        "chat": [],
    }


# --- prompts ---


def parts():
    return [
        DomainRows("chat", "plain", [{"prompt": "Hi?", "domain": "chat"}]),
        DomainRows("math", "plain", [{"prompt": [{"role": "user", "content": "1+1?"}], "domain": "math"}]),
    ]


def test_texts_and_conversations_become_one_form(tokenizer):
    """demand R11's neighbour: TRL looks at the first prompt of a batch only, so a mix would break on the second."""
    from mgs_trl.build import apply_template

    planned = recipe(domains={"math": {"system_prompt": "Be exact.", "prompt_suffix": " Box it."}})
    rows = parts()
    write_all(planned, rows, apply_template(planned, tokenizer), tokenizer)
    assert rows[0].rows[0]["prompt"] == [{"role": "user", "content": "Hi?"}]
    assert rows[1].rows[0]["prompt"] == [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": "1+1? Box it."},
    ]


def test_zero_think_is_the_papers_layout(tokenizer):
    """Preamble, `User: <query>...</query>`, and a generation prompt that is exactly `Assistant:`."""
    from mgs_trl.build import apply_template

    planned = recipe(domains={name: {"template": "zero_think"} for name in ("chat", "math")})
    form = apply_template(planned, tokenizer)
    assert form.conversational
    conversation = [
        {"role": "user", "content": " Hi? "},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Why?"},
    ]
    text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    preamble, turns = text.split("\n", 1)
    assert turns == "User: <query>Hi?</query>\nAssistant: Yes.\nUser: <query>Why?</query>\nAssistant:"
    assert all(tag in preamble for tag in ("<think>", "</think>", "<response>", "</response>"))


def test_different_templates_are_rendered_to_text(tokenizer):
    from mgs_trl.build import apply_template

    planned = recipe(domains={"math": {"template": "zero_think"}})
    rows = parts()
    write_all(planned, rows, apply_template(planned, tokenizer), tokenizer)
    assert rows[0].rows[0]["prompt"] == "u:Hi?\na:"
    assert rows[1].rows[0]["prompt"].endswith("User: <query>1+1?</query>\nAssistant:")


def test_the_runs_template_variables_are_written_and_counted(tokenizer):
    """TRL gives them to conversations when it tokenizes them, and to texts, which are rendered here, no more."""
    from mgs_trl.build import apply_template

    tokenizer.chat_template += "{% if thinking is defined and not thinking %}<t></t>{% endif %}"
    quiet = {"chat_template_kwargs": {"thinking": False}}
    planned, rows = recipe(quiet, domains={"math": {"template": "zero_think"}}), parts()
    write_all(planned, rows, apply_template(planned, tokenizer), tokenizer)
    assert rows[0].rows[0]["prompt"] == "u:Hi?\na:<t></t>"
    length = len("u:Hi?\na:")  # one token a character
    for trainer, fits in (({}, True), (quiet, False)):
        planned, rows = recipe(trainer, max_prompt_length=length), parts()[:1]
        if fits:
            write_all(planned, rows, apply_template(planned, tokenizer), tokenizer)
            continue
        with pytest.raises(ValueError, match=f"domain 'chat' has no prompt of at most max_prompt_length = {length}"):
            write_all(planned, rows, apply_template(planned, tokenizer), tokenizer)


def test_without_a_chat_template_texts_stay_and_conversations_are_refused(tokenizer):
    from mgs_trl.build import apply_template

    tokenizer.chat_template = None
    planned = recipe()
    rows = parts()
    write_all(planned, rows[:1], apply_template(planned, tokenizer), tokenizer)
    assert rows[0].rows[0]["prompt"] == "Hi?"
    with pytest.raises(ValueError, match=r"domain 'math' has conversations.*no chat template"):
        write_all(planned, rows[1:], apply_template(planned, tokenizer), tokenizer)


def test_long_prompts_are_dropped_and_counted(tokenizer):
    from mgs_trl.build import apply_template

    planned = recipe(max_prompt_length=10)
    short, long = "1234", "1234567"  # one token a character, and `u:`, a new line and `a:` around them
    rows = [DomainRows("chat", "plain", [{"prompt": short, "domain": "chat"}, {"prompt": long, "domain": "chat"}])]
    write_all(planned, rows, apply_template(planned, tokenizer), tokenizer)
    assert [row["prompt"][0]["content"] for row in rows[0].rows] == [short]
    assert list(rows[0].dropped.values()) == [1]
    with pytest.raises(ValueError, match="max_prompt_length = 10"):
        write_all(
            planned,
            [DomainRows("chat", "plain", [{"prompt": long, "domain": "chat"}])],
            apply_template(planned, tokenizer),
            tokenizer,
        )


def test_unknown_templates():
    with pytest.raises(ValueError, match="Did you mean 'zero_think'"):
        trainer_fields(recipe(domains={"math": {"template": "zero_thnk"}}))


@pytest.mark.parametrize("own", [{}, {"temperature": 0.5}], ids=["shared", "different"])
def test_stop_strings_of_the_trainer_hold_beside_the_templates(own):
    given = {"generation_kwargs": {"stop": ["User:"], "min_tokens": 3}}
    asked = recipe(given, domains={"math": {"template": "zero_think", "sampling": own}}, rollout="vllm")
    sampling = parse_sampling(build_config(asked))
    assert sampling.of("math").stop == ("User:", *find_template("zero_think").stop)
    assert sampling.of("chat").stop == ("User:",)


def test_generation_kwargs_do_not_compete_with_different_sampling():
    asked = recipe({"generation_kwargs": {"top_k": 5}}, domains={"math": {"sampling": {"temperature": 0.5}}})
    with pytest.raises(ValueError, match="generation_kwargs has 'top_k', but sampling differs"):
        parse_sampling(build_config(asked))
