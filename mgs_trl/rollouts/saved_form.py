"""A policy's weights as its checkpoint has them, which is what vLLM loads.

transformers 5 gives some models other names than their checkpoints have, and makes one parameter of a layer's experts.
vLLM knows that form of some models only. The private name used here, verified with transformers 5.17.0, is
`_weight_conversions`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers.core_model_loading import revert_weight_conversion


def as_saved(model: Any, parameters: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """What `save_pretrained` would write of each parameter, one parameter in memory at a time.

    A quantized model's parameters stay as they are, and so do those of a model of which several become one when it is
    saved.

    Args:
        model: the policy, perhaps with adapters.
        parameters: names, without what adapters add to them, and tensors.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    conversions = getattr(base, "_weight_conversions", None) or []
    joined = any(len(conversion.target_patterns) > 1 for conversion in conversions)
    as_it_is = joined or getattr(base, "hf_quantizer", None) is not None
    for name, parameter in parameters:
        saved = {name: parameter.detach()}
        yield from (saved if as_it_is else revert_weight_conversion(base, saved)).items()
