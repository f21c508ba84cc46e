"""The domains of a run: which there are, how many prompts of each make a window, and what they can be trained with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from datasets import Dataset, IterableDataset
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.training_args import OptimizerNames

from mgs_trl.config import MGSConfig, mapping
from mgs_trl.domains.schedule import check_mixture, quotas
from mgs_trl.training.window import ROW_MEAN_LOSSES, TOKEN_MEAN_LOSSES

#: Loss types of TRL 1.16 with one normaliser per generation batch: a block of rows needs no scale of its own.
WINDOW_SUM_LOSSES = ("dapo", "cispo", "vespo")
_TEXT_ONLY = "multi-domain training takes text prompts only"


@dataclass(frozen=True)
class DomainMix:
    """Domains of the training data, and their quotas.

    Attributes:
        column: dataset column with the domain's name.
        domains: domains of the training data, sorted.
        quotas: prompts per window by domain; empty unless there are at least two domains.
        factors: of the domains' gradients, in the order of `domains`; empty if all are one.
        names: every domain of the training and evaluation data, training domains first: what row labels index.
    """

    column: str
    domains: tuple[str, ...] = ()
    quotas: dict[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    factors: tuple[float, ...] = ()

    @property
    def multi_domain(self) -> bool:
        return len(self.domains) > 1

    @classmethod
    def from_dataset(cls, train: Any, evaluation: Any, args: MGSConfig) -> "DomainMix":
        """Read the domains of a dataset and check the mixture against them.

        Raises:
            ValueError: a mixture without a domain column, a row without a domain, a mixture that does not fit the
                domains or leaves one without prompts, evaluation batches that split prompt groups.
        """
        column = args.domain_column
        if evaluation is not None and (args.eval_on_start or args.eval_strategy != "no"):
            args.check_evaluation_batch()
        evaluated = evaluation.values() if isinstance(evaluation, dict) else [evaluation]
        # A stream does not tell its domains before it is read: what it has of the training domains is counted.
        indexed = [dataset for dataset in evaluated if not isinstance(dataset, IterableDataset)]
        others = {name for dataset in indexed for name in _domains_of(dataset, column) if name}
        columns = _columns(train)
        if column not in columns:
            for name in ("mixture", "domain_weights"):
                if getattr(args, name) is not None:
                    raise ValueError(
                        f"{name} is set, but train_dataset has no column {column!r} (domain_column); its columns are "
                        f"{columns}."
                    )
            return cls(column, names=tuple(sorted(others)))
        labels = _domains_of(train, column)
        domains = tuple(sorted(set(labels)))
        names = (*domains, *sorted(others - set(domains)))
        mixture = check_mixture(mapping(args.mixture) or dict.fromkeys(domains, 1.0), domains)
        factors = domain_factors(mapping(args.domain_weights), domains)
        if len(domains) < 2:
            if any(factor != 1 for factor in factors):
                raise ValueError(
                    f"domain_weights is {args.domain_weights!r}, but one domain has none to weigh against."
                )
            return cls(column, domains, names=names)
        return cls(column, domains, quotas(mixture, args.prompts_per_window()), names, factors)

    def labels(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        """Index into `names` of each row; -1 for a row without a domain, or with one that is not there."""
        index = {name: i for i, name in enumerate(self.names)}
        return [index.get(row.get(self.column, ""), -1) for row in rows]


def domain_factors(weights: dict[str, float] | None, domains: Sequence[str]) -> tuple[float, ...]:
    """`MGSConfig.domain_weights` in the order of `domains`; empty if there are none.

    Raises:
        ValueError: they are not those of the data.
    """
    if not weights:
        return ()
    if set(weights) != set(domains):
        raise ValueError(
            f"domain_weights has the domains {sorted(weights)}, but it must have those of the data: {list(domains)}."
        )
    return tuple(float(weights[domain]) for domain in domains)


def _columns(dataset: Any) -> list[str]:
    names = getattr(dataset, "column_names", None)
    if names is None and isinstance(dataset, IterableDataset):
        return list(next(iter(dataset), {}))  # a stream may not know what its rows hold
    return list(names or ())


def _domains_of(dataset: Any, column: str) -> list[str]:
    if column not in _columns(dataset):
        return []
    if isinstance(dataset, IterableDataset):
        raise ValueError(
            f"the dataset is streamed (IterableDataset) and has a {column!r} column, but exact quotas need a Dataset "
            "that can be indexed; load it without streaming."
        )
    labels = list(dataset[column])
    for row, label in enumerate(labels):
        if not isinstance(label, str) or not label:
            raise ValueError(f"row {row} of the data has {column} {label!r}, but it must be a domain's name.")
    return labels


def check_supported(args: MGSConfig, train: Dataset) -> None:
    """Refuse what multi-domain training cannot do exactly.

    Raises:
        ValueError: names the setting and what to use instead.
    """
    images = [name for name in ("image", "images") if name in train.column_names]
    if images:
        raise ValueError(f"the data has the column {images[0]!r}, but {_TEXT_ONLY}.")
    for row, kind in _other_parts(train):
        raise ValueError(f"row {row} of the data has a prompt with a part of type {kind!r}, but {_TEXT_ONLY}.")
    check_settings(args)


def check_settings(args: MGSConfig) -> None:
    """What `check_supported` says without the data."""
    known = (*ROW_MEAN_LOSSES, *TOKEN_MEAN_LOSSES, *WINDOW_SUM_LOSSES)
    if args.loss_type not in known:
        raise ValueError(f"loss_type is {args.loss_type!r}, but multi-domain training knows only {sorted(known)}.")
    if args.fp16:
        raise ValueError("fp16 is True, but its loss scaling cannot be combined with surgery exactly; use bf16.")
    optim = OptimizerNames(args.optim).value
    if optim in ("lomo", "adalomo") or optim.endswith("layerwise"):
        raise ValueError(f"optim is {optim!r}, which updates during backward, before surgery; use another.")
    if args.ddp_static_graph:
        raise ValueError("ddp_static_graph is True, but DDP accumulates a domain's gradient first; leave it out.")
    if cast(AcceleratorConfig, args.accelerator_config).split_batches:
        raise ValueError(
            "accelerator_config.split_batches is True, but with several domains every rank draws whole batches of its "
            "own; set it to False."
        )


def _other_parts(data: Dataset) -> Iterator[tuple[int, str]]:
    """Row and type of each part of a prompt's messages that is not text."""
    first = next(iter(data["prompt"]), "") if "prompt" in data.column_names else ""
    if not first or isinstance(first, str) or isinstance(first[0].get("content"), str):
        return  # so are all: a column has one type
    for row, messages in enumerate(data["prompt"]):
        for part in (part for message in messages for part in message.get("content") or ()):
            if part["type"] != "text":
                yield row, part["type"]
