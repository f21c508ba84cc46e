"""RolloutTrainer: a trainer whose rollouts know their domain. Each row is sampled, scored and counted as its own."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, cast

import torch
from accelerate.data_loader import BatchSamplerShard
from accelerate.utils import gather
from torch import Tensor, nn
from transformers import GenerationConfig
from trl import GRPOTrainer

from mgs_trl.config import MGSConfig
from mgs_trl.engines import reshard
from mgs_trl.ranks.agreement import rewards_of_all_ranks
from mgs_trl.rollouts.sampling import DomainSampling, by_row, check_tools, ended
from mgs_trl.rollouts.served import served_context
from mgs_trl.rollouts.temperature import TemperatureChoice
from mgs_trl.training.advantages import domain_advantages, needs_domain_statistics
from mgs_trl.training.metrics import DomainMetrics, add_rollout_metrics, rows_met_first
from mgs_trl.training.mix import DomainMix
from mgs_trl.training.prompts import check_prompts
from mgs_trl.training.resumable import ResumableTrainer
from mgs_trl.training.window import RowBlock

logger = logging.getLogger(__name__)


class RolloutTrainer(ResumableTrainer):
    """What happens to a generation batch, from its prompts to its advantages. `MGSTrainer` sets the attributes."""

    args: MGSConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    model: nn.Module  # pyright: ignore[reportIncompatibleVariableOverride]
    mix: DomainMix
    _sampling: DomainSampling
    _temperature: TemperatureChoice
    _block: RowBlock | None  # whose loss is computed now
    _domain_metrics: dict[str, DomainMetrics]
    _rewards_per_func: Tensor | None
    _written: list[list[int]] | None = None  # 0 for tokens of a completion that are a tool's; None without tools
    _seconds: defaultdict[str, float]  # spent since the last generation batch was logged

    def __init__(self, *args: Any, **kwargs: Any):
        given = signature(GRPOTrainer).bind(*args, **kwargs).arguments
        check_tools(given.get("tools"), given["args"], self._sampling)
        super().__init__(*args, **kwargs)
        check_tools(self.tools, self.args, self._sampling)  # an environment's, too
        if self.rollout_func is None:
            for data in (self.train_dataset, self.eval_dataset):
                check_prompts(data, self.args.domain_column, self.processing_class)
        self._served_context = served_context(self.vllm_generation) if self.use_vllm else None
        by_pattern = self.args.vllm_structured_outputs_regex is not None
        truncated = [name for name in self.mix.names if by_pattern or self._sampling.of(name).truncates]
        corrected = self.use_vllm and self.vllm_importance_sampling_correction
        if truncated and corrected and self.accelerator.is_main_process:
            logger.warning(
                "the domains %s have top_p, top_k, min_p or vllm_structured_outputs_regex, so "
                "vllm_importance_sampling_correction multiplies the loss of their completions by the share of "
                "probability that is left, for every token anew: long ones hardly train; set it to False, or leave the "
                "truncation out.",
                truncated,
            )

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        self.args.check_evaluation_batch()  # `evaluate` may be given the first dataset that there is
        return super().get_eval_dataloader(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._find_sampling(inputs)
        mask_here = self.mask_truncated_completions and self._sampling.stop_completes
        self.mask_truncated_completions = self.mask_truncated_completions and not mask_here
        try:
            output = super()._generate_and_score_completions(inputs)
        finally:
            self.mask_truncated_completions = self.mask_truncated_completions or mask_here
        if mask_here:
            self._mask_truncated(output)
        self._log_seconds()
        if not self.mix.multi_domain or not self.model.training:
            return output
        output["domain"] = torch.tensor(self.mix.labels(inputs), device=self.accelerator.device)
        if needs_domain_statistics(self.scale_rewards, self.multi_objective_aggregation):
            assert self._rewards_per_func is not None
            advantages, flat = domain_advantages(
                self._rewards_per_func,
                self.reward_weights.to(self.accelerator.device),
                cast(Tensor, gather(output["domain"])),
                self.num_generations or 1,
                self.multi_objective_aggregation,
            )
            self._metrics["train"]["frac_reward_zero_std"][-1] = flat.float().mean().item()  # TRL's is of the mix
            logged = self._logs["advantages"]  # TRL has put its own there, of all ranks
            for _ in range(len(advantages)):
                logged.pop()
            logged.extend(advantages.tolist())
            local = len(inputs)
            output["advantages"] = advantages[self.accelerator.process_index * local :][:local]
        return output

    # --- generation ---

    def _generate(self, prompts: list) -> tuple[Any, ...]:
        generated = super()._generate(prompts)
        self._written = generated[2]
        return generated

    def _find_sampling(self, inputs: list[dict[str, Any]]) -> None:
        """Which settings the rows have, here and on any rank: calls that are collective are made for the latter."""
        sampling = self._sampling
        sampling.rows = [sampling.of(row.get(self.args.domain_column)) for row in inputs]
        if not sampling.differs:
            return
        here = torch.tensor([[each in sampling.rows for each in sampling.distinct]], device=self.accelerator.device)
        anywhere = cast(Tensor, gather(here)).any(dim=0).tolist()
        sampling.present = [each for each, there in zip(sampling.distinct, anywhere, strict=True) if there]

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], Any, dict[str, Any]]:
        prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        room = self._prompt_room()
        if room is None:
            return prompt_ids, images, fields
        # A rank whose prompts have images gathers too: another's may have none. What a processor says of each token
        # would not fit the prompt that was cut.
        cut = images is None and not fields
        long = torch.tensor([cut and len(ids) > room for ids in prompt_ids], device=self.accelerator.device)
        mode = "train" if self.model.training else "eval"
        share = cast(Tensor, gather(long)).float().mean().item()
        self._metrics[mode]["rollouts/truncated_prompts"].append(share)
        return [ids[-room:] for ids in prompt_ids] if cut else prompt_ids, images, fields

    def _prompt_room(self) -> int | None:
        """Tokens that a prompt can have: what the context leaves beside a completion, or all but one if it is short."""
        policy: Any = self.accelerator.unwrap_model(self.model)
        config = policy.config.get_text_config()
        contexts = [getattr(config, "max_position_embeddings", None)]
        contexts += [self.args.vllm_max_model_length, self._served_context] if self.use_vllm else []
        known = [length for length in contexts if length]
        if not known:
            return None
        context, longest = min(known), self.max_completion_length or 0  # without a limit: what the prompt leaves
        return context - longest if 0 < longest < context else context - 1

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: dict, num_generations: int, **options: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        started, before = time.perf_counter(), self._seconds["sync"]
        if self.use_vllm or not self._sampling.differs:
            turn = super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations, **options)
        elif images is None and not multimodal_fields:
            turn = self._generate_by_sampling(prompt_ids, num_generations)
        else:
            raise ValueError("sampling differs between domains, but prompts with images need rollouts from vLLM.")
        completion_ids, logprobs = turn
        for row, ids in enumerate(completion_ids):
            if not ids:  # TRL looks at every completion's last token
                completion_ids[row] = [self.eos_token_ids[0]]
                if logprobs is not None:
                    logprobs[row] = [0.0]
        self._seconds["generation"] += time.perf_counter() - started - (self._seconds["sync"] - before)
        return completion_ids, logprobs

    def _generate_by_sampling(self, prompt_ids: list[list[int]], num_generations: int) -> tuple[list[list[int]], None]:
        """Transformers draws a batch with one setting: one call for each."""
        completions: list[list[int]] = [[] for _ in prompt_ids]
        own = self.generation_config, self.generation_kwargs
        try:
            for wanted in self._sampling.present:
                rows = by_row(self._sampling.rows, wanted)
                request = wanted.request()
                changes = {name: request[name] for name in ("temperature", "top_p", "top_k", "min_p")}
                self.generation_kwargs = {**own[1], **changes, "max_new_tokens": wanted.max_completion_length}
                self.generation_config = GenerationConfig(**self.generation_kwargs, disable_compile=True)
                # A rank without such rows still takes part: gathering sharded weights is collective.
                prompts = [prompt_ids[row] for row in rows or [0]]
                found, _ = super()._generate_single_turn(prompts, None, {}, num_generations)
                for row, ids in zip(rows, found, strict=False):
                    completions[row] = ids
        finally:
            self.generation_config, self.generation_kwargs = own
        return completions, None

    def _ended(self, completion_ids: list[list[int]]) -> list[bool]:
        ends = [*self.eos_token_ids, self._tokenizer.pad_token_id]
        pairs = zip(completion_ids, self._sampling.rows, strict=True)
        return [ended(ids, ends, sampling, self._tokenizer.decode) for ids, sampling in pairs]

    def _mask_truncated(self, output: dict[str, Any]) -> None:
        """What TRL's `mask_truncated_completions` does, where a stop string may be an end too."""
        pairs = zip(output["completion_ids"], output["completion_mask"].bool(), strict=True)
        whole = torch.tensor(self._ended([ids[mask].tolist() for ids, mask in pairs]), device=self.accelerator.device)
        output["completion_mask"] = output["completion_mask"] * whole.unsqueeze(1)
        if "tool_mask" in output:
            output["tool_mask"] = output["tool_mask"] * whole.unsqueeze(1)
        kept = (output["completion_mask"] * output.get("tool_mask", 1)).sum()
        output["num_items_in_batch"] = cast(Tensor, self.accelerator.gather(kept)).sum()

    # --- log-probabilities at the temperature that a row was sampled with ---

    def _get_per_token_logps_and_entropies(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        score = partial(super()._get_per_token_logps_and_entropies, model)
        if len(self._sampling.temperatures) < 2:
            return score(input_ids, attention_mask, *args, **kwargs)
        if self._block is not None or (self.model.training and not self.mix.multi_domain):
            trained = self._block.domain if self._block is not None else 0
            domain = self.mix.domains[trained] if self.mix.domains else None
            with self._temperature.use(self._sampling.of(domain).temperature):
                return score(input_ids, attention_mask, *args, **kwargs)
        # Where a forward pass is collective, or more than tokens goes in, every pass takes all rows.
        whole = self.is_deepspeed_enabled or self.is_fsdp_enabled or kwargs.get("compute_aux_loss", False)
        tokens_only = ("batch_size", "compute_entropy", "compute_aux_loss")
        whole = whole or any(value is not None for name, value in kwargs.items() if name not in tokens_only)
        row_temperatures = [sampling.temperature for sampling in self._sampling.rows]
        every, order, parts = list(range(len(input_ids))), [], []
        for temperature in sorted({sampling.temperature for sampling in self._sampling.present}):
            rows = [row for row in every if row_temperatures[row] == temperature]
            if not rows and not whole:
                continue
            taken = every if whole else rows
            with self._temperature.use(temperature):
                logps, entropies, aux_loss = score(input_ids[taken], attention_mask[taken], *args, **kwargs)
            keep = rows if whole else slice(None)
            order += rows
            parts.append((logps[keep], None if entropies is None else entropies[keep], aux_loss))
        back = torch.tensor(order).argsort().to(input_ids.device)
        logps = torch.cat([part[0] for part in parts])[back]
        found = [part[1] for part in parts if part[1] is not None]
        return logps, torch.cat(found)[back] if found else None, parts[-1][2]

    # --- rewards ---

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids_list: list
    ) -> Tensor:
        started = time.perf_counter()
        score = partial(super()._calculate_rewards, inputs, prompts, completions, completion_ids_list)
        rewards_per_func = rewards_of_all_ranks(self.accelerator, score, len(prompts), len(self.reward_funcs))
        self._seconds["scoring"] += time.perf_counter() - started
        if self.mix.names:  # not: if these rows have a domain, which other ranks' rows may not have
            rewards_per_func = self._count_rows(inputs, completion_ids_list, rewards_per_func)
        self._rewards_per_func = rewards_per_func
        return rewards_per_func

    def _count_rows(self, inputs: list[dict[str, Any]], completion_ids: list, rewards_per_func: Tensor) -> Tensor:
        """Add a batch to its domains' metrics; returns its rewards, NaN where a row of a domain had an infinite one."""
        device, labels = self.accelerator.device, self.mix.labels(inputs)
        clipped = [not whole for whole in self._ended(completion_ids)]
        lengths = [sum(mask) for mask in self._written] if self._written else [len(ids) for ids in completion_ids]
        rows = torch.tensor([labels, lengths, clipped], device=device).T
        domains, lengths, was_clipped = cast(Tensor, gather(rows.contiguous())).T
        infinite = rewards_per_func.isinf() & (domains >= 0).unsqueeze(1)
        # One infinite reward would turn its whole group's advantages into NaN, which TRL zeroes without a word.
        rewards_per_func = rewards_per_func.masked_fill(infinite, torch.nan)
        rewards = (rewards_per_func * self.reward_weights.to(device)).nansum(dim=1)
        rewards[rewards_per_func.isnan().all(dim=1)] = torch.nan
        training = self.model.training
        once = slice(None) if training else slice(self._rows_met_first(len(domains)))
        add_rollout_metrics(
            self._domain_metrics["train" if training else "eval"],
            self.mix.names,
            domains[once],
            rewards[once],
            lengths[once],
            was_clipped[once],
            infinite.any(dim=1)[once],
            (self.num_generations if training else self.num_generations_eval) or 1,
        )
        self._seconds["tokens"] = lengths.sum().item()
        return rewards_per_func

    def _rows_met_first(self, rows: int) -> int:
        """How many of an evaluation batch's `rows`, over all ranks, are not there to fill up the last round."""
        state = self.accelerator.gradient_state
        parts: Any = getattr(state.active_dataloader, "batch_sampler", None) if state.end_of_dataloader else None
        if not isinstance(parts, BatchSamplerShard) or parts.drop_last:
            return rows
        # Not accelerate's `remainder`, which is of the data, whose rows the sampler repeats.
        sampler: Any = parts.batch_sampler.sampler
        return rows_met_first(len(sampler), rows)

    def _sync_from_shards(self, sync: Callable[[], None]) -> None:
        reshard(self.model)  # an evaluation leaves some parameters whole, which TRL would take for shards
        sync()

    def _timed(self, act: Callable[[], None], name: str) -> Callable[[], None]:
        """`act`, whose time is logged as `seconds/NAME`."""

        def timed() -> None:
            started = time.perf_counter()
            act()
            self._seconds[name] += time.perf_counter() - started

        return timed

    def _log_seconds(self) -> None:
        metrics, seconds = self._metrics["train" if self.model.training else "eval"], self._seconds
        for name in ("generation", "sync", "scoring"):
            metrics[f"seconds/{name}"].append(seconds[name])
        if seconds["tokens"] and seconds["generation"] > 0:
            metrics["rollouts/tokens_per_second"].append(seconds["tokens"] / seconds["generation"])
        seconds.clear()
