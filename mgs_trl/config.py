"""MGSConfig: TRL's GRPOConfig and the fields of multi-domain training."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, cast

from transformers.training_args import trainer_log_levels
from trl import GRPOConfig

from mgs_trl.domains.schedule import check_mixture
from mgs_trl.rollouts.sampling import parse_sampling
from mgs_trl.rollouts.settings import ServerSettings
from mgs_trl.surgery.choices import check_choice, check_exclude, check_top_modules
from mgs_trl.surgery.methods import BALANCES, SurgeryRule, check_method
from mgs_trl.surgery.modules import GRANULARITIES, KINDS

DTYPES = ("float32", "bfloat16", "float64")
MAPPINGS = ("mixture", "domain_weights", "sampling", "server", "lr_scheduler_kwargs", "gradient_checkpointing_kwargs",
            "generation_kwargs", "chat_template_kwargs", "transformers_continuous_batching_config")  # fmt: skip

# What TRL and torch would divide by, train with the wrong sign, or refuse in the middle of a run; None is left open.
AT_LEAST_ONE = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
                "eval_accumulation_steps", "num_iterations", "steps_per_generation", "ref_model_sync_steps",
                "pad_to_multiple_of")  # fmt: skip
AT_LEAST_ZERO = ("learning_rate", "weight_decay", "num_train_epochs", "beta", "epsilon", "epsilon_high",
                 "dataloader_num_workers", "seed", "neftune_noise_alpha", "num_generations_eval", "logging_steps",
                 "eval_steps", "save_steps")  # fmt: skip
ABOVE_ZERO = ("adam_epsilon", "delta", "repetition_penalty")
BELOW_ONE = ("adam_beta1", "adam_beta2")
AT_MOST_ONE = ("top_entropy_quantile", "ref_model_mixup_alpha")
FLOATS = ("adam_beta1", "adam_beta2", "temperature", "repetition_penalty")  # a whole number is refused, once it is used
CHOICES = {
    **dict.fromkeys(("log_level", "log_level_replica"), tuple(trainer_log_levels)),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}


@dataclass
class MGSConfig(GRPOConfig):
    """Configuration of [`MGSTrainer`]: every `GRPOConfig` field, and these.

    As in TRL, a mapping may be given as JSON text, which is how a command line gives it; `str` is in a type for that.

    Raises:
        ValueError: a field out of its range; the message names the field, the value and what is allowed.
    """

    domain_column: str = field(
        default="domain",
        metadata={"help": "Dataset column that names each row's domain. Without it, plain GRPO."},
    )
    mixture: dict[str, float] | str | None = field(
        default=None,
        metadata={"help": "Relative share of each domain in every window. Default: equal shares."},
    )
    domain_weights: dict[str, float] | str | None = field(
        default=None,
        metadata={"help": "Factor of each domain's gradient, before surgery. Default: 1 for every domain."},
    )
    sampling: dict[str, dict[str, Any]] | str | None = field(
        default=None,
        metadata={
            "help": "Sampling of domains that differ from the rest: temperature, top_p, top_k, min_p, "
            "max_completion_length, stop, stop_completes by domain (mgs_trl.rollouts.sampling)."
        },
    )
    surgery: str = field(
        default="pcgrad",
        metadata={
            "help": "'pcgrad'; 'none' trains like GRPOTrainer; 'observe' measures conflicts and changes nothing; "
            "'rescaled' gives the plain sum pcgrad's norm in each module; or another "
            "rule on the Gramian by name (upgrad, mgda, ...; needs torchjd)."
        },
    )
    granularity: str = field(
        default="block",
        metadata={"help": "Where conflicts are resolved: 'global', 'layer', 'block' or 'tensor'."},
    )
    balance: str = field(
        default="none",
        metadata={
            "help": "'domain' or 'module': bring the domain gradients to equal norm (over the model, or per module) "
            "before surgery, keeping the size of the update."
        },
    )
    gramian_ema: float = field(
        default=0.0,
        metadata={"help": "Smoothing of the Gramian from which all weights are taken, in [0, 1)."},
    )
    surgery_exclude: list[str] = field(
        default_factory=list,
        metadata={"help": "Kinds of module left out of surgery; they get the plain (balanced) sum."},
    )
    surgery_top_modules: float | str | int | None = field(
        default=None,
        metadata={"help": "Only the modules of largest gradient norm: a number of modules (int) or a share (float)."},
    )
    surgery_seed: int | None = field(
        default=None, metadata={"help": "Seed of the projection order. Default: the training seed."}
    )
    surgery_dtype: str = field(
        default="float32",
        metadata={"help": "dtype in which domain gradients are kept until the window ends."},
    )
    surgery_offload: bool = field(
        default=False, metadata={"help": "Keep the domain gradients in host memory instead of on the device."}
    )
    server: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Generate on vLLM servers: urls, transfer, weight_dir, timeout, sync_timeout, generate_timeout "
            "(mgs_trl.rollouts.settings). Sets use_vllm, and vllm_mode to 'server'."
        },
    )
    weight_check_syncs: int = field(
        default=10,
        metadata={
            "help": "Compare vLLM's weights with the policy's at the first two weight synchronizations and every so "
            "many after that; 0 never."
        },
    )
    conflict_log_steps: int | None = field(
        default=None,
        metadata={
            "help": "Write per-module Gramians to OUTPUT_DIR/conflicts.jsonl every so many optimizer steps; 0 never. "
            "Default: logging_steps."
        },
    )

    def __post_init__(self) -> None:
        self._read_text()
        self._check_surgery()
        self._check_rollouts()
        super().__post_init__()
        self._check_ranges()
        parse_sampling(self)
        if self.surgery_seed is None:
            self.surgery_seed = self.seed
        if self.conflict_log_steps is None:
            self.conflict_log_steps = int(self.logging_steps) if self.logging_steps >= 1 else 10

    def _read_text(self) -> None:
        for name in MAPPINGS:
            value = getattr(self, name)
            if isinstance(value, str):
                setattr(self, name, value := _from_json(value))
            if not isinstance(value, dict) and value is not None:
                raise ValueError(f"{name} is {value!r}, but it must be a mapping, or one as JSON text.")
            for key in value or ():
                if not isinstance(key, str):
                    raise ValueError(f"{name} has the key {key!r}, but its keys must be text; write it in quotes.")
        if isinstance(self.surgery_top_modules, str):
            self.surgery_top_modules = _from_json(self.surgery_top_modules)

    def _check_surgery(self) -> None:
        check_method("surgery", self.surgery)
        check_choice("granularity", self.granularity, GRANULARITIES)
        check_choice("balance", self.balance, BALANCES)
        check_choice("surgery_dtype", self.surgery_dtype, DTYPES)
        if self.surgery_exclude is None:
            self.surgery_exclude = []
        if not isinstance(self.surgery_exclude, (list, tuple)):
            raise ValueError(f"surgery_exclude is {self.surgery_exclude!r}, but it must be a list of {list(KINDS)}.")
        check_exclude("surgery_exclude", self.surgery_exclude, self.granularity)
        if not isinstance(self.gramian_ema, (int, float)) or not 0.0 <= self.gramian_ema < 1.0:
            raise ValueError(f"gramian_ema is {self.gramian_ema!r}, but it must be a number, at least 0 and below 1.")
        check_top_modules("surgery_top_modules", self.surgery_top_modules)
        if self.conflict_log_steps is not None:
            _check_count("conflict_log_steps", self.conflict_log_steps)
        for domain, weight in mapping(self.domain_weights).items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
                raise ValueError(f"domain_weights.{domain} is {weight!r}, but it must be a number greater than 0.")
        if self.mixture is not None:
            check_mixture(mapping(self.mixture), list(mapping(self.mixture)))

    def _check_ranges(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{name} is nan, but it must be a number.")
        for names, fits, allowed in (
            (AT_LEAST_ONE, lambda x: x >= 1, "at least 1"),
            (AT_LEAST_ZERO, lambda x: 0 <= x < math.inf, "finite and 0 or more"),
            (ABOVE_ZERO, lambda x: 0 < x < math.inf, "finite and greater than 0"),
            (BELOW_ONE, lambda x: 0 <= x < 1, "at least 0 and below 1"),
            (AT_MOST_ONE, lambda x: 0 <= x <= 1, "from 0 to 1"),
        ):
            for name in names:
                value = getattr(self, name)
                if value is not None and not (isinstance(value, Real) and fits(value)):
                    raise ValueError(f"{name} is {value!r}, but it must be a number, {allowed}.")
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name in FLOATS:
            if type(value := getattr(self, name)) is int:
                setattr(self, name, float(value))

    def _check_rollouts(self) -> None:
        _check_count("weight_check_syncs", self.weight_check_syncs)
        if self.num_generations == 0:  # by which TRL divides before it looks
            raise ValueError("num_generations is 0, but it must be a whole number, at least 2.")
        if self.server is not None:
            ServerSettings.parse(mapping(self.server))
            self.use_vllm, self.vllm_mode = True, "server"

    @property
    def separates_domains(self) -> bool:
        """Whether a step needs each domain's gradient by itself, or its sum over domains will do."""
        weighted = any(weight != 1 for weight in mapping(self.domain_weights).values())
        return self.surgery != "none" or self.balance != "none" or weighted

    def surgery_rule(self, factors: Sequence[float] = ()) -> SurgeryRule:
        """What decides the weights of a step; `factors` are `domain_weights` in the order of the domains."""
        top = cast(float | int | None, self.surgery_top_modules)
        exclude = tuple(self.surgery_exclude)
        return SurgeryRule(self.surgery, self.balance, exclude, top, self.surgery_seed or 0, factors)

    def check_evaluation_batch(self) -> None:
        """Refuse evaluation batches that would split a prompt's group; TRL looks only where `eval_strategy` is set.

        Raises:
            ValueError: the batch of all ranks is no multiple of the completions of one prompt.
        """
        name = "num_generations_eval" if self.num_generations_eval else "num_generations"
        group = getattr(self, name) or 1
        rows = self.per_device_eval_batch_size * self.world_size
        if rows % group:
            raise ValueError(
                f"per_device_eval_batch_size is {self.per_device_eval_batch_size}, which makes {rows} completions on "
                f"{self.world_size} rank(s), but that must be a multiple of {name} ({group}) so that an evaluation "
                "batch holds whole prompt groups."
            )

    def prompts_per_window(self) -> int:
        """Prompts of one optimizer step over all ranks.

        Raises:
            ValueError: the batch does not divide into whole prompt groups and whole windows.
        """
        rows = self.per_device_train_batch_size * self.world_size * self.gradient_accumulation_steps
        group = self.num_generations or 1
        if rows % group:
            raise ValueError(
                f"one optimizer step holds {rows} completions (per_device_train_batch_size "
                f"{self.per_device_train_batch_size} x {self.world_size} ranks x gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}), but it must be a multiple of num_generations "
                f"({self.num_generations}) so that it holds whole prompt groups."
            )
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        if steps % self.gradient_accumulation_steps:
            raise ValueError(
                f"steps_per_generation is {steps}, but it must be a multiple of gradient_accumulation_steps "
                f"({self.gradient_accumulation_steps}) so that a generation batch holds whole windows."
            )
        return rows // group


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}, but it must be a whole number, 0 or more.")


def _from_json(text: str) -> Any:
    """What the text holds; text that is no JSON stays, and fails the field's own check."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def mapping(value: dict[str, Any] | str | None) -> dict[str, Any]:
    """A field that `_read_text` has read."""
    assert not isinstance(value, str)
    return value or {}
