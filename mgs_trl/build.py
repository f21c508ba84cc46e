"""From a recipe to a trainer. Everything that can be wrong is found before a model is loaded."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_utils import IntervalStrategy

from mgs_trl.arguments import build_config, domains_with_rows
from mgs_trl.blame import refused
from mgs_trl.config import MGSConfig, mapping
from mgs_trl.domains.datasets import DomainRows, combine, load_domain
from mgs_trl.domains.prompts import PromptForm, prompt_form, prompt_length, write_prompts
from mgs_trl.domains.schedule import quotas
from mgs_trl.domains.schemas import Row
from mgs_trl.domains.templates import find_template
from mgs_trl.policies.adapter import adapter_config, remove_adapter
from mgs_trl.policies.path import check_model_path
from mgs_trl.ranks.layout import check_launch, check_saves_whole
from mgs_trl.recipe import DatasetSpec, Recipe, did_you_mean, output_of
from mgs_trl.strategies import trained_domains
from mgs_trl.verifiers import RewardModelVerifier, Verifier, build_verifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from mgs_trl.trainer import MGSTrainer

Weighted = list[tuple[Callable[..., Any], float]]

# What evaluations log besides rewards: of each domain, and of all rows (beginnings of names).
LOGGED = ("reward_std", "frac_zero_std", "mean_length", "max_length", "tokens", "clipped_ratio", "unscored_ratio",
          "infinite_ratio")  # fmt: skip
LOGGED_BY_TRL = ("completions/", "clip_ratio/", "sampling/", "tools/", "verifier/", "entropy", "kl",
                 "frac_reward_zero_std")  # fmt: skip


@dataclass
class Data:
    """Rows of every domain, for training and (where a domain has them) for evaluation."""

    train: list[DomainRows]
    heldout: list[DomainRows]


def build_trainer(recipe: Recipe, callbacks: Sequence["TrainerCallback"] = (), **changes: Any) -> "MGSTrainer":
    """The trainer of a recipe.

    Args:
        callbacks: added to the trainer's own.
        changes: fields of `MGSConfig` set after the recipe's, such as `eval_on_start=True`.

    Raises:
        ValueError: anything wrong with the recipe, its data, or how they fit together.
    """
    config, peft_config = build_config(recipe), adapter_config(recipe.peft)
    check_saves_whole(config)
    for name, value in changes.items():
        setattr(config, name, value)
    check_launch(config, recipe.model.name_or_path)
    make_output(output_of(recipe))
    check_quotas(recipe, config)
    check_evaluation(recipe, config)
    check_scheduler(config)
    verifiers = build_verifiers(recipe)
    check_best_metric(recipe, config, verifiers)
    tokenizer = load_tokenizer(recipe)
    check_reward_models(recipe, verifiers)
    data = load_data(recipe, verifiers)
    form = apply_template(recipe, tokenizer)
    for parts in (data.train, data.heldout):
        write_all(recipe, parts, form, tokenizer)
    check_rows(data.train, config)
    train, heldout = combine(data.train), combine(data.heldout) if data.heldout else None
    functions = [pair for name in domains_with_rows(recipe) for pair in verifiers[name]]
    config.reward_weights = [weight for _, weight in functions]
    for function, _ in functions:
        preflight = getattr(function, "preflight", None)
        if preflight is not None:
            preflight()

    from peft.utils.error import NoMatchingPeftModuleError

    from mgs_trl.trainer import MGSTrainer

    with refused("the trainer cannot be made", (OSError, RuntimeError, TypeError, ValueError)):
        try:
            return MGSTrainer(
                model=recipe.model.name_or_path,
                reward_funcs=[function for function, _ in functions],
                args=config,
                train_dataset=train,
                eval_dataset=heldout,
                processing_class=tokenizer,
                callbacks=list(callbacks),
                peft_config=peft_config,
            )
        except NoMatchingPeftModuleError as error:
            raise ValueError(f"peft fits no module of the policy: {' '.join(str(error).split())}") from error


def release(trainer: "MGSTrainer") -> None:
    """Before another trainer is made in this process: give back this one's vLLM engine. It can generate no more."""
    from mgs_trl.rollouts.release import release_engine

    llm = getattr(getattr(trainer, "vllm_generation", None), "llm", None)
    if llm is not None:
        release_engine(llm)


def make_output(output: Path) -> None:
    """Raises ValueError if the output directory is not there and cannot be made, or takes no file."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output) as file:  # neither permissions nor a name tell of a full disk
            file.write(b"0")
    except OSError as error:
        raise ValueError(
            f"trainer.output_dir is {str(output)!r}, which cannot be made or written to: {error.strerror}."
        ) from None


def save_policy(trainer: "MGSTrainer") -> None:
    """Write the whole policy, or its adapter, to the output directory. All ranks must call it."""
    from peft import PeftModel

    plugin = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
    if plugin is not None:  # checkpoints may be sharded; with that setting transformers would write no policy at all
        plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model()
    if trainer.is_world_process_zero() and not isinstance(trainer.model, PeftModel):
        remove_adapter(Path(str(trainer.args.output_dir)))


def check_quotas(recipe: Recipe, config: MGSConfig) -> dict[str, int]:
    """Prompts per optimizer step of each domain.

    Raises:
        ValueError: a domain would get none, or the batch is not of whole prompt groups.
    """
    return quotas({name: recipe.domains[name].share for name in trained_domains(recipe)}, config.prompts_per_window())


def check_evaluation(recipe: Recipe, config: MGSConfig) -> None:
    """Raises ValueError if the batches that held-out data is evaluated in split prompt groups, or there is none to
    evaluate during training."""
    if any(domain.eval_dataset is not None for domain in recipe.domains.values()):
        config.check_evaluation_batch()
    elif (when := IntervalStrategy(config.eval_strategy).value) != "no":
        raise ValueError(f"trainer.eval_strategy is {when!r}, but no domain has an eval_dataset.")


def check_scheduler(config: MGSConfig) -> None:
    """Raises ValueError if the learning rate's schedule cannot be made with its `lr_scheduler_kwargs`."""
    from torch import nn, optim
    from transformers import get_scheduler

    optimizer = optim.SGD([nn.Parameter()])
    with refused("trainer.lr_scheduler_type and lr_scheduler_kwargs", (TypeError, ValueError)):
        get_scheduler(config.lr_scheduler_type, optimizer, 0, 1, mapping(config.lr_scheduler_kwargs))


def check_best_metric(recipe: Recipe, config: MGSConfig, verifiers: Mapping[str, Weighted]) -> None:
    """Raises ValueError if checkpoints are to be compared by a metric that no evaluation of this run logs, or by GRPO's
    loss: it is zero or the KL term, so the first checkpoint would be the best."""
    if (name := config.metric_for_best_model) is None:
        return
    heldout = [domain for domain, spec in recipe.domains.items() if spec.eval_dataset is not None]
    if not heldout:
        raise ValueError(f"trainer.metric_for_best_model is {name!r}, but no domain has an eval_dataset.")
    functions = [getattr(function, "__name__", "") for domain in heldout for function, _ in verifiers[domain]]
    known = ["reward", *(f"domain/{d}/reward" for d in heldout), *(f"rewards/{f}/mean" for f in functions)]
    others = [*(f"domain/{d}/{value}" for d in heldout for value in LOGGED), *(f"rewards/{f}/std" for f in functions)]
    metric = name.removeprefix("eval_")
    if metric not in (*known, *others) and not metric.startswith(LOGGED_BY_TRL):
        is_loss = " (the default), which tells no policy from another in GRPO" if metric == "loss" else ""
        raise ValueError(
            f"trainer.metric_for_best_model is {name!r}{is_loss}, but it must be one of {', '.join(known)}."
            + did_you_mean(metric, known)
        )


def check_rows(train: Sequence[DomainRows], config: MGSConfig) -> None:
    """A domain by itself is sampled by TRL, which trains no step at all on less than one generation batch (D2).

    Raises:
        ValueError: there is one domain, and it has fewer prompts than that.
    """
    if len(train) != 1:
        return
    rows = config.per_device_train_batch_size * config.world_size * (config.steps_per_generation or 1)
    prompts = rows // (config.num_generations or 1)
    if len(train[0].rows) < prompts:
        raise ValueError(
            f"domain {train[0].domain!r} has {len(train[0].rows)} prompts, but a generation batch takes {prompts}; "
            "give it more, or a smaller per_device_train_batch_size or gradient_accumulation_steps."
        )


def build_verifiers(recipe: Recipe) -> dict[str, Weighted]:
    """Each domain's reward functions with their weights; models behind them are not loaded yet.

    Raises:
        ValueError: an unknown verifier, option, or function.
    """
    return {name: build_verifier(domain.verifier, domain=name) for name, domain in recipe.domains.items()}


def check_reward_models(recipe: Recipe, verifiers: dict[str, Weighted]) -> None:
    """Raises ValueError if a reward model is to be loaded from a path at which there is none."""
    for name in domains_with_rows(recipe):
        for function, _ in verifiers[name]:
            if isinstance(function, RewardModelVerifier) and isinstance(function.source, str):
                check_model_path(f"domains.{name}.verifier: reward_model.model", function.source)


def load_tokenizer(recipe: Recipe) -> "PreTrainedTokenizerBase":
    """The policy's tokenizer, padding on the left.

    Raises:
        ValueError: there is none, or it cannot be reached.
    """
    from transformers import AutoTokenizer

    spec = recipe.model
    check_model_path("model", spec.name_or_path)
    try:
        return AutoTokenizer.from_pretrained(
            spec.name_or_path,
            revision=spec.revision,
            padding_side="left",
            truncation_side="left",
            trust_remote_code=spec.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise ValueError(f"model {spec.name_or_path!r}: its tokenizer cannot be loaded: {line}") from None


def load_data(recipe: Recipe, verifiers: dict[str, Weighted]) -> Data:
    """Rows of the domains that are trained on, and held-out rows of all, checked by the domains' verifiers.

    Raises:
        ValueError: unreadable data, or rows that the verifiers cannot score.
    """
    data, trained = Data([], []), trained_domains(recipe)
    for name, domain in recipe.domains.items():
        if name in trained:
            data.train.append(load_rows(name, domain.dataset, verifiers[name]))
        if domain.eval_dataset is not None:
            data.heldout.append(load_rows(name, domain.eval_dataset, verifiers[name]))
    return data


def load_rows(name: str, spec: DatasetSpec, verifiers: Weighted) -> DomainRows:
    """One dataset of a domain, checked by the domain's verifiers.

    Raises:
        ValueError: unreadable data, or rows that the verifiers cannot score.
    """
    own = [function for function, _ in verifiers if isinstance(function, Verifier)]

    def check_row(row: Row) -> None:
        for verifier in own:
            verifier.check_columns(row)
            if not verifier.scorable(row):
                raise ValueError(f"verifier {verifier.__name__!r} has no value to score with")
            verifier.validate_row(row)

    read = {column for verifier in own for choice in verifier.column_choices for column in choice}
    return load_domain(name, spec, check_row, keep=read)


def apply_template(recipe: Recipe, tokenizer: Any) -> PromptForm:
    """How prompts are written; sets the tokenizer's chat template where all domains share one of ours.

    Raises:
        ValueError: an unknown template, or one that the tokenizer cannot serve.
    """
    templates = {name: find_template(domain.template) for name, domain in recipe.domains.items()}
    form = prompt_form(templates, tokenizer)
    if form.chat_template is not None:
        tokenizer.chat_template = form.chat_template
    return form


def write_all(recipe: Recipe, parts: Sequence[DomainRows], form: PromptForm, tokenizer: Any) -> None:
    """Bring all prompts to the run's form, and drop those longer than `max_prompt_length`.

    Raises:
        ValueError: prompts that cannot take the form, or a domain all of whose prompts are too long.
    """
    limit, variables = recipe.max_prompt_length, recipe.trainer.get("chat_template_kwargs") or {}
    for part in parts:
        domain = recipe.domains[part.domain]
        template = find_template(domain.template)
        write_prompts(part, form, template, domain.system_prompt, domain.prompt_suffix, tokenizer, variables)
        if limit is not None:
            part.drop(
                lambda row: prompt_length(row["prompt"], tokenizer, variables) <= limit,
                f"prompt longer than {limit} tokens",
            )
        if not part.rows:
            raise ValueError(f"domain {part.domain!r} has no prompt of at most max_prompt_length = {limit} tokens.")
