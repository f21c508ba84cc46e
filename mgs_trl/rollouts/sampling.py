"""How each domain's completions are drawn: the settings, and which rows have which."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mgs_trl.rollouts.settings import ServerSettings


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        max_completion_length: tokens.
        stop: strings that end a completion, which includes them; vLLM only.
        stop_completes: a completion that ended with a stop string is complete, as one that ended with the end token
            is; otherwise it counts as truncated.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    max_completion_length: int = 256
    stop: tuple[str, ...] = ()
    stop_completes: bool = True

    @property
    def truncates(self) -> bool:
        """Whether some tokens cannot be drawn, so that the others are likelier than the policy has them."""
        return self.top_p < 1 or self.top_k > 0 or bool(self.min_p)

    def request(self) -> dict[str, Any]:
        """As vLLM names them, in its `SamplingParams` and in requests to its server."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p or 0.0,
            "max_tokens": self.max_completion_length,
            "stop": list(self.stop),
        }


FIELDS = tuple(field.name for field in dataclasses.fields(Sampling))
_CHECKED = ("temperature", "top_p", "min_p", "max_completion_length")  # vLLM takes -1 as top_k, too
_FROM_CONFIG = ("temperature", "top_p", "top_k", "min_p", "max_completion_length")
VLLM_LEAST_TEMPERATURE = 0.01  # it draws at this one when asked for less
#: Of `generation_kwargs`: what would draw other completions than the trainer takes them for.
_REFUSED = {
    "temperature": "completions are scored at the trainer's temperature; set temperature",
    "seed": "with it all completions of a prompt are the same; set the run's seed",
    "n": "the trainer asks for num_generations completions; leave it out",
    "num_return_sequences": "the trainer asks for num_generations completions; leave it out",
    "logprobs": "the trainer takes the first for the drawn token's; leave it out",
    "prompt_logprobs": "the trainer has no use for them; leave it out",
}


class DomainSampling:
    """Every domain's sampling, and the domains of the rows at hand.

    Args:
        by_domain: of the domains that have their own.
        default: of all other rows.

    Attributes:
        rows: of the batch that is generated or scored now, on this rank.
        present: the different settings of that batch's rows on any rank, in the order of `distinct`.
    """

    def __init__(self, by_domain: Mapping[str, Sampling], default: Sampling):
        self.by_domain, self.default = dict(by_domain), default
        self.rows: list[Sampling] = []
        self.present: list[Sampling] = []

    @property
    def differs(self) -> bool:
        """Whether any domain is drawn otherwise than TRL would by the config alone."""
        return any(sampling.request() != self.default.request() for sampling in self.by_domain.values())

    @property
    def stop_completes(self) -> bool:
        """Whether any domain has stop strings that complete."""
        return any(sampling.stop and sampling.stop_completes for sampling in self.by_domain.values())

    @property
    def distinct(self) -> list[Sampling]:
        """The different settings, in the same order on every rank; the default, of rows without a domain, is first."""
        return list(dict.fromkeys([self.default, *self.by_domain.values()]))

    @property
    def temperatures(self) -> list[float]:
        """The different temperatures, in the same order on every rank; the default's is always among them."""
        return sorted({sampling.temperature for sampling in self.distinct})

    def among(self, names: Sequence[str]) -> "DomainSampling":
        """The sampling of the domains that there are.

        Raises:
            ValueError: one is set for a domain that there is not.
        """
        for domain in self.by_domain:
            if domain not in names:
                found = f"only {', '.join(names)}" if names else "no domain column in the data"
                raise ValueError(f"sampling names the domain {domain!r}, but there is {found}.")
        return DomainSampling({name: self.of(name) for name in names}, self.default)

    def of(self, domain: Any) -> Sampling:
        """The sampling of a domain."""
        return self.by_domain.get(domain, self.default)


def parse_sampling(args: Any) -> DomainSampling:
    """Read `MGSConfig.sampling`.

    Raises:
        ValueError: an unknown key, a value out of its range, or one that the run's rollouts cannot serve.
    """
    for name in _REFUSED:
        if name in (args.generation_kwargs or {}):
            raise ValueError(f"generation_kwargs has {name!r}, but {_REFUSED[name]}.")
    default = Sampling(
        **{name: getattr(args, name) for name in _FROM_CONFIG},
        stop=stop_strings(args.generation_kwargs),
        stop_completes=False,  # as TRL has it
    )
    if args.sampling and default.max_completion_length is None:
        raise ValueError("max_completion_length is None, but with sampling by domain it must be a number of tokens.")
    checked = _CHECKED if args.use_vllm else (*_CHECKED, "top_k")
    _check("", default, [name for name in checked if getattr(default, name) is not None])
    if args.use_vllm:
        _check_temperature("", default)
    _check("generation_kwargs.", default, ["stop"])
    by_domain = {}
    for domain, given in (args.sampling or {}).items():
        where = f"sampling.{domain}"
        if not isinstance(given, Mapping):
            raise ValueError(f"{where} is {given!r}, but it must map {', '.join(FIELDS)} to values.")
        for name in given:
            if name not in FIELDS:
                raise ValueError(f"{where} has the unknown key {name!r}; allowed: {', '.join(FIELDS)}.")
        own = {name: value for name, value in given.items() if value is not None or name == "min_p"}
        if "stop" in own:
            own["stop"] = _strings(own["stop"])
        by_domain[domain] = dataclasses.replace(default, **{"stop_completes": True, **own} if own else {})
        _check(f"{where}.", by_domain[domain], own)
        if args.use_vllm:
            _check_temperature(f"{where}.", by_domain[domain])
        longest = default.max_completion_length
        if by_domain[domain].max_completion_length > longest:
            raise ValueError(
                f"{where}.max_completion_length is {by_domain[domain].max_completion_length}, but it must be at most "
                f"the run's max_completion_length, {longest}."
            )
    sampling = DomainSampling(by_domain, default)
    if sampling.differs:
        _check_backend(args, sampling)
        for name in args.generation_kwargs or {}:
            if name in default.request() and name != "stop":
                raise ValueError(f"generation_kwargs has {name!r}, but sampling differs between domains and sets it.")
    return sampling


def check_tools(tools: Any, args: Any, sampling: DomainSampling) -> None:
    """Refuse tools where the turns after a call, which some rows of some ranks take, cannot be told apart.

    Raises:
        ValueError: there are tools, and sampling differs, or several ranks draw together: TRL then gives a rank the
            turns of another, or waits for one without a call.
    """
    if not tools:
        return
    if sampling.differs:
        raise ValueError("sampling differs between domains, but tools take one sampling for all rows; use one.")
    for name, alone in (("vllm_mode", "colocate"), ("vllm_tensor_parallel_size", 1)):
        value = getattr(args, name)
        if args.use_vllm and args.world_size > 1 and value != alone:
            raise ValueError(
                f"{name} is {value!r}, but with tools each of the {args.world_size} ranks must draw by itself; set it "
                f"to {alone!r}."
            )


def stop_strings(generation_kwargs: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The stop strings of TRL's `generation_kwargs`."""
    return _strings((generation_kwargs or {}).get("stop") or ())


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _check(where: str, sampling: Sampling, own: Iterable[str]) -> None:
    length, top_k, min_p = sampling.max_completion_length, sampling.top_k, sampling.min_p
    fits = {
        "temperature": (_is_number(sampling.temperature) and sampling.temperature > 0, "a number greater than 0"),
        "top_p": (_is_number(sampling.top_p) and 0 < sampling.top_p <= 1, "greater than 0 and at most 1"),
        "top_k": (_is_whole(top_k) and top_k >= 0, "a whole number, 0 for all tokens"),
        "min_p": (min_p is None or (_is_number(min_p) and 0 <= min_p <= 1), "from 0 to 1"),
        "max_completion_length": (_is_whole(length) and length >= 1, "a whole number of at least 1"),
        "stop": (all(isinstance(text, str) and text for text in sampling.stop), "a list of texts that are not empty"),
        "stop_completes": (isinstance(sampling.stop_completes, bool), "true or false"),
    }
    for name in own:
        good, allowed = fits[name]
        if not good:
            raise ValueError(f"{where}{name} is {getattr(sampling, name)!r}, but it must be {allowed}.")


def _check_temperature(where: str, sampling: Sampling) -> None:
    if sampling.temperature < VLLM_LEAST_TEMPERATURE:
        raise ValueError(
            f"{where}temperature is {sampling.temperature!r}, but vLLM draws at no less than {VLLM_LEAST_TEMPERATURE}, "
            "and completions are scored at the temperature that is set; it must be at least that."
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_backend(args: Any, sampling: DomainSampling) -> None:
    if not args.use_vllm:
        stops = sorted({text for each in sampling.by_domain.values() for text in each.stop})
        if stops:
            raise ValueError(f"sampling has the stop strings {stops}, but transformers' rollouts have none; use vLLM.")
        if args.use_transformers_continuous_batching:
            raise ValueError("sampling differs between domains, but use_transformers_continuous_batching takes one.")
    elif args.vllm_mode == "server" and not _serves_by_directory(args):
        raise ValueError(
            "sampling differs between domains, but TRL's own vLLM client takes one; set server.transfer: directory."
        )


def _serves_by_directory(args: Any) -> bool:
    return args.server is not None and ServerSettings.parse(args.server).by_directory(args.device.type == "cuda")


def ended(ids: Sequence[int], ends: Sequence[int], sampling: Sampling, decode: Any) -> bool:
    """Whether a completion came to its end, and was not cut.

    Args:
        ids: the completion's tokens.
        ends: end and padding tokens.
        decode: from tokens to text.
    """
    if not ids:
        return False
    if ids[-1] in ends:
        return True
    return sampling.stop_completes and bool(sampling.stop) and _has(decode(ids), sampling.stop)


def _has(text: str, stops: Sequence[str]) -> bool:
    return any(stop in text for stop in stops)


def by_row(samplings: Sequence[Sampling], wanted: Sampling) -> list[int]:
    """Rows that have the sampling `wanted`."""
    return [row for row, sampling in enumerate(samplings) if sampling == wanted]
