"""MGSTrainer: GRPOTrainer that keeps each domain's gradient apart and resolves their conflicts module by module."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from mgs_trl.config import MGSConfig
from mgs_trl.domains.sampler import DomainSampler
from mgs_trl.engines import DomainGradients, Engine, check_engine, make_engine
from mgs_trl.ranks.layout import check_launch
from mgs_trl.records.checkpoints import RUN_ID
from mgs_trl.records.conflict_log import ConflictLog
from mgs_trl.records.metrics_log import MetricsLog
from mgs_trl.rollouts.colocated import colocated_engine, reload_weights
from mgs_trl.rollouts.errors import RolloutError
from mgs_trl.rollouts.requests import sample_by_row
from mgs_trl.rollouts.sampling import parse_sampling
from mgs_trl.rollouts.served import served
from mgs_trl.rollouts.temperature import TemperatureChoice, temperature_heads
from mgs_trl.rollouts.weight_check import check_weights
from mgs_trl.surgery import ConflictReport, Surgeon, partition_model
from mgs_trl.surgery.choices import check_operated
from mgs_trl.training.metrics import DomainMetrics
from mgs_trl.training.mix import DomainMix, check_supported
from mgs_trl.training.padding import can_do_without_padding
from mgs_trl.training.rollout_trainer import RolloutTrainer
from mgs_trl.training.token_sums import TokenSums
from mgs_trl.training.window import RowBlock, WindowShape, check_rows, cut_windows, gather_rows, scale_loss

STATE_FILE = "surgery_state.pt"


class MGSTrainer(RolloutTrainer):
    """A drop-in for TRL's `GRPOTrainer` that trains one policy on several domains with gradient surgery.

    Give the training data a `domain` column. Every optimizer step then holds exact quotas of the domains, each
    domain's gradient is reduced by itself, and the conflicts between them are resolved (Modular Gradient Surgery,
    arXiv 2602.02301) before clipping and the optimizer's step. Without a domain column, or with one domain, it is
    `GRPOTrainer`. All arguments are `GRPOTrainer`'s; `args` is an [`MGSConfig`].

    How one step flows is in docs/one-step.md.

    Raises:
        ValueError: a mixture, batch or engine that multi-domain training cannot be exact with; before a model loads.
    """

    _tag_names: ClassVar = ["trl", "grpo", "mgs"]
    _name = "MGS"
    _paper: ClassVar = {
        "title": "Advancing General-Purpose Reasoning Models with Modular Gradient Surgery",
        "id": "2602.02301",
    }

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: MGSConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *rest: Any,
        **kwargs: Any,
    ):
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = MGSConfig(f"{name.split('/')[-1]}-MGS")
        if not isinstance(args, MGSConfig):
            raise ValueError(f"args is a {type(args).__name__}, but MGSTrainer takes an MGSConfig.")
        check_launch(args, model)
        self.mix = DomainMix.from_dataset(train_dataset, eval_dataset, args)
        if self.mix.multi_domain:
            check_supported(args, train_dataset)
        self._domain_metrics = {"train": DomainMetrics(), "eval": DomainMetrics()}
        self._rewards_per_func = self._block = None
        self._means: tuple[tuple[Tensor | None, float | Tensor], ...] = ()  # of that block
        self._sampling = parse_sampling(args).among(self.mix.names)
        self._temperature, self._seconds = TemperatureChoice(), defaultdict(float)
        by_sequence = args.importance_sampling_level == "sequence"
        self._token_sums = TokenSums(len(self.mix.domains), args.use_bias_correction_kl, by_sequence)
        self._collector: DomainGradients | None = None
        self._surgeon: Surgeon | None = None
        self._engine: Engine | None = None
        self._loaded_state: dict[str, Any] | None = None
        colocated = args.use_vllm and args.vllm_mode == "colocate"
        on_cpu = colocated and args.device.type == "cpu"
        step = lambda: self.state.global_step  # noqa: E731
        heads = temperature_heads(self._sampling.temperatures, self._temperature)
        engine = colocated_engine(colocated, args.seed, on_cpu, "auto" if args.bf16 else "float32")
        with engine, served(args, step), heads:
            super().__init__(model, reward_funcs, args, train_dataset, eval_dataset, *rest, **kwargs)
        if on_cpu:
            self.vllm_generation.sync_weights = partial(reload_weights, self.vllm_generation)
        if args.use_vllm:
            check_weights(self.vllm_generation, args.weight_check_syncs)
            sample_by_row(self.vllm_generation, self._sampling)
            sync = self.vllm_generation.sync_weights
            self.vllm_generation.sync_weights = self._timed(partial(self._sync_from_shards, sync), "sync")
        output = Path(str(args.output_dir))
        self._conflict_log = ConflictLog(output / "conflicts.jsonl", args.conflict_log_steps or 0)
        self._metrics_log = MetricsLog(output)
        self.add_callback(self._metrics_log)
        if self.mix.multi_domain:
            check_engine(self.accelerator)
            self.add_callback(_TrainingCalls(self))

    # --- data: exact quotas, rows labelled with their domain ---

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.args.domain_column not in self._signature_columns:
            self._signature_columns.append(self.args.domain_column)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        if not self.mix.multi_domain:
            return super()._get_train_sampler(dataset)
        rows: Any = self.train_dataset if dataset is None else dataset
        windows = self._windows_per_generation()
        sampler = DomainSampler(
            rows[self.args.domain_column],
            self.mix.quotas,
            num_generations=self.num_generations or 1,
            windows=windows,
            repeats=self.num_iterations * self.args.gradient_accumulation_steps * windows,
            seed=self.args.seed,
            shuffle=bool(self.shuffle_dataset),
        )
        # The step count says in which epoch a resumed run is, hence which prompts come.
        steps_per_epoch = sampler.batches_per_epoch * self.num_iterations * windows
        sampler.epoch = lambda: self.state.global_step // steps_per_epoch
        return sampler

    def _windows_per_generation(self) -> int:
        steps = self.args.steps_per_generation or self.args.gradient_accumulation_steps
        return steps // self.args.gradient_accumulation_steps

    # --- batching: every training step processes blocks of rows of one domain each ---

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        return generation_batch if isinstance(generation_batch, RowBlock) else super()._prepare_inputs(generation_batch)

    def _window_shape(self) -> WindowShape:
        policy: Any = self.accelerator.unwrap_model(self.model)
        return WindowShape(
            self._train_batch_size,
            self.args.gradient_accumulation_steps,
            self.loss_type,
            can_do_without_padding(policy),
            cast(int, self.pad_to_multiple_of) or 1,
        )

    def _micro_step(self, generation_batch: Any) -> list[RowBlock]:
        """The row blocks of this training step, from the buffered generation batch or a new one."""
        accumulation, windows = self.args.gradient_accumulation_steps, self._windows_per_generation()
        steps = accumulation * windows
        if self._buffered_inputs is None:
            # After resuming, the position in the generation batch follows from the optimizer steps done.
            self._step = self.state.global_step * accumulation
        if self._buffered_inputs is None or self._step % (steps * self.num_iterations) == 0:
            rows = self._generate_and_score_completions(generation_batch)
            check_rows(rows)
            rows = gather_rows(self.accelerator, rows, cast(int, self._tokenizer.pad_token_id))
            self._buffered_inputs, imbalance = cut_windows(
                rows,
                rows.pop("domain").tolist(),
                windows,
                self._window_shape(),
                self.accelerator.process_index,
                self.accelerator.num_processes,
            )
            self._metrics["train"]["ranks/token_imbalance"].append(imbalance)
        return self._buffered_inputs[self._step % steps]

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        if not self.mix.multi_domain:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        if self._engine is None:  # `train` was not called
            self._prepare_surgery(model)
        # Before the rollouts: a schedule-free optimizer evaluates with other weights than it trains.
        getattr(self.optimizer, "train", lambda: None)()
        started = time.perf_counter()
        *earlier, last = self._micro_step(inputs)
        drawn = time.perf_counter()
        loss = torch.zeros((), device=self.accelerator.device)
        for block in earlier:
            with self._backward_of(block, ends_window=False):
                loss += Trainer.training_step(self, model, block, num_items_in_batch)
        ends_window = self.accelerator.sync_gradients
        with self._backward_of(last, ends_window):
            loss += super().training_step(model, last, num_items_in_batch)
        self._seconds["step"] += time.perf_counter() - started
        self._seconds["training"] += time.perf_counter() - drawn
        if ends_window:
            # TRL saw the last block alone: not the rollouts, the blocks before it, and surgery.
            self._metrics["train"]["step_time"][-1:] = [self._seconds.pop("step")]
            self._metrics["train"]["seconds/training"].append(self._seconds.pop("training"))
        return loss

    # --- surgery: keep each domain's gradient, decide at the window's end ---

    def _prepare_surgery(self, model: nn.Module) -> None:
        """For the model as prepared for training; every call of `train` may have another optimizer."""
        args = self.args
        unwrapped = cast(nn.Module, self.accelerator.unwrap_model(self.model, keep_torch_compile=False))
        self._engine = make_engine(self.accelerator, model, unwrapped)
        if not args.separates_domains:
            return
        modules = partition_model(unwrapped, args.granularity)
        rule = args.surgery_rule(self.mix.factors)
        check_operated("", rule.exclude, rule.top_modules, modules)
        self._surgeon = Surgeon(self.mix.domains, modules, rule, args.gramian_ema)
        if self._loaded_state is not None:
            self._surgeon.load_state_dict(self._loaded_state)
        self._collector = DomainGradients(
            self._engine,
            modules,
            len(self.mix.domains),
            getattr(torch, args.surgery_dtype),
            args.surgery_offload,
        )
        self._engine.before_step = self._operate

    @contextmanager
    def _backward_of(self, block: RowBlock, ends_window: bool) -> Iterator[None]:
        """Around the forward and backward of one block: when to reduce, and what happens to the reduced gradient."""
        assert self._engine is not None
        state = self.accelerator.gradient_state
        synced = state.sync_gradients
        state._set_sync_gradients(ends_window)  # as transformers' own loop does, for each micro-batch
        reduce = ends_window or (self._collector is not None and block.ends_domain)
        self._last_domain = block.domain
        try:
            with self._engine.backward(reduce, ends_window):
                yield
        finally:
            state._set_sync_gradients(synced)
        if self._collector is not None and block.ends_domain and not ends_window:
            self._collector.keep(block.domain)

    def _operate(self) -> None:
        """Resolve the window's conflicts. The engine calls it when the last domain is reduced, before it steps."""
        assert self._collector is not None and self._surgeon is not None
        report = self._collector.resolve(self._last_domain, self._surgeon, self.state.global_step + 1)
        self._record(report, self._collector)

    def _record(self, report: ConflictReport, collector: DomainGradients) -> None:
        metrics = self._metrics["train"]
        for name, value in report.metrics().items():
            metrics[name].append(value)
        metrics["surgery/seconds"].append(collector.seconds())
        place, size = collector.memory()
        metrics[f"surgery/memory_gib/{place}"].append(size / 2**30)
        for name in self.mix.domains:
            metrics[f"surgery/dropped/{name}"].append(float(name in report.dropped))
        if self.accelerator.is_main_process:
            self._conflict_log.write(report)

    # --- loss: a block's part of the micro-batch's loss ---

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if not isinstance(inputs, RowBlock):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._block = inputs
        try:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return scale_loss(loss, inputs, self._means)
        finally:
            self._block, self._means = None, ()

    def _get_per_token_logps_and_entropies(
        self, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        block = self._block
        if block is None or entropies is None:
            return logps, entropies, aux_loss
        self._token_sums.add(block, logps.detach(), entropies.detach())
        # The entropy bonus and the router's loss are means over the micro-batch, whatever the loss of its rows is.
        self._means = ((entropies, block.token_scale), (aux_loss, block.row_scale))
        return logps, entropies, aux_loss

    # --- metrics ---

    def _log_token_sums(self) -> None:
        sums = self._token_sums.take(self.accelerator)
        if not sums:
            return
        count = max(sum(tokens for _, _, tokens in sums), 1.0)
        means = sum(entropy for entropy, _, _ in sums) / count, sum(kl for _, kl, _ in sums) / count
        for name, value in zip(("entropy", "kl"), means, strict=True):
            if name in self._metrics["train"]:
                self._metrics["train"][name] = [value]
        metrics = self._domain_metrics["train"]
        for name, (entropy, kl, tokens) in zip(self.mix.domains, sums, strict=True):
            metrics.add_sum(f"domain/{name}/entropy", entropy, tokens)
            if self.beta != 0.0:
                metrics.add_sum(f"domain/{name}/kl", kl, tokens)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self.control.should_log:
            self._log_token_sums()  # not in `log`, which a callback may call on one rank
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        self._log_token_sums()  # of the steps since the last log
        return super()._finalize_training(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        if mode == "train" and len(self.mix.domains) == 1:
            for name in {"entropy", "kl"} & self._metrics[mode].keys():  # every row is the domain's
                self._metrics[mode][f"domain/{self.mix.domains[0]}/{name}"] = list(self._metrics[mode][name])
        for name, value in self._domain_metrics[mode].flush().items():
            self._metrics[mode][name].append(value)
        super().log(logs, start_time)

    # --- checkpoints ---

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self._add_to_checkpoint(
            Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        self._add_to_checkpoint(Path(checkpoint_folder))  # else it would be uploaded without
        super()._push_from_checkpoint(checkpoint_folder)

    def _add_to_checkpoint(self, folder: Path) -> None:
        if not self.args.should_save:
            return
        if self._metrics_log.run_id is not None:
            (folder / RUN_ID).write_text(self._metrics_log.run_id)
        if self.mix.multi_domain:
            smoother = self._surgeon.state_dict() if self._surgeon else None
            state = {"quotas": self.mix.quotas, "smoother": smoother, "ranks": self.accelerator.num_processes}
            torch.save(state, folder / STATE_FILE)

    def _inner_training_loop(self, *args: Any, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        self._loaded_state = None
        if self.mix.multi_domain:
            self._buffered_inputs = None  # of an earlier call: the position follows from the steps done
            if resume_from_checkpoint is not None:
                self._read_state(Path(resume_from_checkpoint))  # before anything is loaded into the engine
        try:
            return super()._inner_training_loop(*args, resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        except RolloutError:  # on every rank, between two steps
            if self.state.global_step > 0:
                self._save_checkpoint(self.model, None)
            raise

    def _read_state(self, checkpoint: Path) -> None:
        if not (checkpoint / STATE_FILE).exists():
            return
        state = torch.load(checkpoint / STATE_FILE, weights_only=True)
        if state["quotas"] != self.mix.quotas:
            raise ValueError(
                f"the checkpoint {checkpoint} was trained with {state['quotas']} prompts per window, but this run has "
                f"{self.mix.quotas}; resume with the same domains, mixture and batch."
            )
        ranks = self.accelerator.num_processes
        if self.is_deepspeed_enabled and state.get("ranks", ranks) != ranks:
            raise ValueError(
                f"the checkpoint {checkpoint} holds DeepSpeed shards of {state['ranks']} ranks, but this run has "
                f"{ranks}; resume on as many, or start from its model with a fresh optimizer."
            )
        self._loaded_state = state["smoother"]


class _TrainingCalls(TrainerCallback):
    """What is done on every rank when training begins."""

    def __init__(self, trainer: MGSTrainer):
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._trainer._prepare_surgery(cast(nn.Module, self._trainer.model_wrapped))
