"""`--check`: everything about a recipe that can be found out without training and without loading weights."""

import math
import os
import socket
from collections import Counter
from dataclasses import dataclass, field
from textwrap import shorten
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mgs_trl.blame import refused
from mgs_trl.policies.path import is_local
from mgs_trl.recipe import Recipe
from mgs_trl.strategies import strategy_of

if TYPE_CHECKING:
    from mgs_trl.build import Weighted
    from mgs_trl.config import MGSConfig
    from mgs_trl.ranks.memory import MemoryEstimate

# What a launcher sets; a check is one process, whatever number of ranks it is asked about.
_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class Plan:
    """What a recipe comes to.

    Attributes:
        quotas: prompts per optimizer step of each domain.
        rows, heldout: what was found of each domain's data; a domain whose data is not reachable is missing.
        counts: rows of each domain that is trained on.
        memory: what each rank holds; None where the model's configuration is not reachable.
        modules: number of the modules of each kind that surgery decides on, none where no domain is kept
            apart; None as for memory.
        unchecked: what could not be checked, and why.
    """

    recipe: Recipe
    config: "MGSConfig"
    ranks: int
    quotas: dict[str, int]
    verifiers: "dict[str, Weighted]"
    sampling: dict[str, dict[str, Any]]
    rows: dict[str, str] = field(default_factory=dict)
    heldout: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    memory: "MemoryEstimate | None" = None
    modules: dict[str, int] | None = None
    unchecked: list[str] = field(default_factory=list)

    @property
    def windows(self) -> int:
        """Optimizer steps of a generation batch, each time that it is gone through."""
        return (self.config.steps_per_generation or 1) // self.config.gradient_accumulation_steps

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the run; None where they depend on data that is not reachable."""
        if self.config.max_steps >= 0:
            return self.config.max_steps
        if self.counts.keys() != self.quotas.keys():
            return None
        batches = max(1, sum(self.counts.values()) // (sum(self.quotas.values()) * self.windows))
        return math.ceil(self.config.num_train_epochs * batches * self.windows * self.config.num_iterations)

    def times_drawn(self, name: str) -> float | None:
        """How often each prompt of a domain is drawn in the run; None where that is not known."""
        if self.steps is None or name not in self.counts:
            return None
        return self.quotas[name] * self.steps / self.config.num_iterations / self.counts[name]


def check(recipe: Recipe, ranks: int | None = None) -> Plan:
    """Check a recipe.

    Args:
        ranks: data-parallel ranks to plan for; default: `WORLD_SIZE`, else 1.

    Raises:
        ValueError: what is wrong with it.
    """
    ranks = ranks or int(os.environ.get("WORLD_SIZE", "1"))
    for name in _LAUNCHER:
        os.environ.pop(name, None)
    if not _hub_answers():
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported, below

    from transformers import GenerationConfig
    from transformers.integrations import get_reporting_integration_callbacks

    from mgs_trl.arguments import build_config, domains_with_rows, sampling_by_domain
    from mgs_trl.build import (
        build_verifiers,
        check_best_metric,
        check_evaluation,
        check_quotas,
        check_reward_models,
        check_scheduler,
    )
    from mgs_trl.config import mapping
    from mgs_trl.ranks.layout import check_saves_whole, check_tensor_parallel
    from mgs_trl.rollouts.sampling import parse_sampling
    from mgs_trl.training.mix import check_settings, domain_factors

    config = build_config(recipe, ranks)
    check_saves_whole(config)
    check_tensor_parallel(config)
    parse_sampling(config).among(domains_with_rows(recipe))  # as the trainer does with the domains of its data
    quotas = check_quotas(recipe, config)
    check_evaluation(recipe, config)
    check_scheduler(config)
    with refused("trainer.cache_implementation", (ValueError,)):
        GenerationConfig(cache_implementation=config.cache_implementation)
    if len(quotas) > 1:
        check_settings(config)
    domain_factors(mapping(config.domain_weights), sorted(quotas))
    with refused("trainer.report_to", (ValueError,)):
        get_reporting_integration_callbacks(config.report_to)
    plan = Plan(recipe, config, ranks, quotas, build_verifiers(recipe), sampling_by_domain(recipe))
    check_best_metric(recipe, config, plan.verifiers)
    if config.use_cpu and (config.bf16 or config.fp16):
        plan.unchecked.append("mixed precision (no GPU here)")
    tokenizer = _tokenizer(plan)
    check_reward_models(recipe, plan.verifiers)
    _check_data(plan, tokenizer)
    _check_policy(plan)
    plan.unchecked.append("the weights of the policy and of reward models, and reward servers (needed from the start)")
    return plan


def _tokenizer(plan: Plan) -> Any:
    """The tokenizer, or None where the hub does not answer."""
    from mgs_trl.build import load_tokenizer

    name = plan.recipe.model.name_or_path
    try:
        return load_tokenizer(plan.recipe)
    except ValueError as error:
        if is_local(name) or "HF_HUB_OFFLINE" not in os.environ:
            raise
        plan.unchecked.append(f"chat template and prompt lengths: {error}")
        return None


def _check_policy(plan: Plan) -> None:
    """What a rank holds and what surgery decides on, from the model's configuration."""
    import torch
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from mgs_trl.policies.adapter import adapter_config
    from mgs_trl.ranks.layout import launch_layout
    from mgs_trl.ranks.memory import check_fits, count_parameters, empty_policy, estimate, with_adapter
    from mgs_trl.surgery import partition_model
    from mgs_trl.surgery.choices import check_operated

    spec, adapter = plan.recipe.model, adapter_config(plan.recipe.peft)
    unset_hf_deepspeed_config()  # under ZeRO-3 transformers would deal the model out to ranks, and there are none
    try:
        policy, stored = empty_policy(
            spec.name_or_path, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError) as error:
        plan.unchecked.append(f"memory and modules: {shorten(str(error), 200, placeholder=' ...')}")
        return
    policy = with_adapter(policy, adapter)
    config, plan.modules = plan.config, {}
    if config.separates_domains and len(plan.quotas) > 1:
        modules = partition_model(policy, config.granularity)
        rule = config.surgery_rule()
        check_operated("trainer.", rule.exclude, rule.top_modules, modules)
        measured = config.surgery in ("none", "observe")  # what is measured, or weighted, is every module
        plan.modules = dict(Counter(m.kind for m in modules if measured or m.kind not in rule.exclude))
    dtype = {None: "float32", "auto": stored}.get(spec.dtype, spec.dtype)  # TRL loads in float32 unless told otherwise
    parameters, trained = count_parameters(policy)
    layout = launch_layout(config, plan.ranks)
    domains, has_adapter = len(plan.quotas), adapter is not None
    plan.memory = estimate(parameters, domains, config, layout, dtype or "float32", trained, has_adapter)
    if torch.cuda.is_available():
        check_fits(plan.memory, torch.cuda.get_device_properties(0).total_memory)


def _check_data(plan: Plan, tokenizer: Any) -> None:
    from mgs_trl.build import apply_template, check_rows, load_rows, write_all
    from mgs_trl.domains.datasets import DataUnreachable, combine
    from mgs_trl.domains.templates import find_template

    for domain in plan.recipe.domains.values():
        find_template(domain.template)
    form = None if tokenizer is None else apply_template(plan.recipe, tokenizer)
    for key, found in (("dataset", plan.rows), ("eval_dataset", plan.heldout)):
        parts = []
        for name, domain in plan.recipe.domains.items():
            spec = getattr(domain, key)
            if spec is None or (key == "dataset" and name not in plan.quotas):
                continue
            try:
                parts.append(load_rows(name, spec, plan.verifiers[name]))
            except DataUnreachable as error:
                plan.unchecked.append(f"domains.{name}.{key}: {error}")
        if form is not None:
            write_all(plan.recipe, parts, form, tokenizer)
        if key == "dataset" and len(plan.quotas) == 1:
            check_rows(parts, plan.config)
        if form is not None and parts:
            combine(parts)
        for part in parts:
            dropped = "".join(f", {count} dropped ({reason})" for reason, count in part.dropped.items())
            if key == "dataset":
                plan.counts[part.domain] = len(part.rows)
            found[part.domain] = f"{len(part.rows)} ({part.schema}{dropped})"


def print_plan(plan: Plan, console: Console) -> None:
    """The plan as tables."""
    recipe, config = plan.recipe, plan.config
    table = Table("", title="Domains")
    cells = []
    for name, domain in recipe.domains.items():
        table.add_column(name, overflow="fold")
        cells.append(
            {
                "dataset": domain.dataset.path,
                "rows": plan.rows.get(name, _without_rows(plan, name)),
                "held-out rows": plan.heldout.get(name, "not reachable") if domain.eval_dataset else "none",
                "prompts per step": str(plan.quotas.get(name, 0)),
                "each is drawn": "not known" if (times := plan.times_drawn(name)) is None else f"{times:.2g} times",
                "template": domain.template,
                "verifiers": "\n".join(
                    f"{getattr(function, '__name__', function)}" + (f" x {weight:g}" if weight != 1 else "")
                    for function, weight in plan.verifiers[name]
                ),
                "sampling": "\n".join(
                    f"{key}: {value}" for key, value in plan.sampling[name].items() if value not in (None, [])
                ),
            }
        )
    for label in cells[0]:
        table.add_row(label, *(Text(cell[label]) for cell in cells), end_section=True)
    console.print(table)
    length = [] if config.max_steps >= 0 else [f"{config.num_train_epochs:g} epochs"]
    length += [] if plan.steps is None else [f"{plan.steps} steps"]
    lines = {
        "model": recipe.model.name_or_path,
        "strategy": f"{strategy_of(recipe)[0]} (surgery {config.surgery}, granularity {config.granularity}, "
        f"balance {config.balance})",
        "step": f"{sum(plan.quotas.values())} prompts x {config.num_generations} completions "
        f"over {plan.ranks} rank(s), {plan.windows} step(s) per generation batch",
        "length": ", ".join(length),
        "rollouts": "vllm" if config.use_vllm else "transformers",
        "modules": _modules(plan),
        "memory per rank": plan.memory.line() if plan.memory else "not known",
        "output": str(config.output_dir),
    }
    summary = Table("", "", title="Run", show_header=False)
    for name, line in lines.items():
        summary.add_row(name, line)
    console.print(summary)
    for line in plan.unchecked:
        console.print(f"not checked: {line}", markup=False, highlight=False)
    console.print("nothing wrong found.")


def _modules(plan: Plan) -> str:
    """What surgery decides on, in words."""
    if not plan.modules:
        return "not known" if plan.modules is None else "no surgery"
    if plan.config.granularity == "global":
        return "the whole model"
    counts = ", ".join(f"{count} {kind}" for kind, count in plan.modules.items())
    top = plan.config.surgery_top_modules
    if top is None or plan.config.surgery in ("none", "observe"):
        return counts
    return f"the largest {top:g} of {counts}"


def _without_rows(plan: Plan, name: str) -> str:
    """Why a domain has no rows to train on."""
    if name in plan.quotas:
        return "not reachable"
    return "evaluated only" if plan.recipe.domains[name].eval_dataset else "not used"


def _hub_answers(timeout: float = 3.0) -> bool:
    """A quick look, as the hub's client retries for half a minute; behind a proxy it is left to the client."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    endpoint = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
        socket.create_connection((endpoint.hostname or "", port), timeout).close()
    except OSError:
        return False
    return True
