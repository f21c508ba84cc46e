"""The order in which ZeRO-3 gathers parameters, which it takes from an earlier forward pass.

Verified with DeepSpeed 0.19.8: `parameter_offload` of its optimizer (or what stands in the optimizer's place where
nothing is trained), and its coordinator's `is_invalid_trace` and `_invalidate_trace`.
"""

from typing import Any


def forget_order(engine: Any) -> None:
    """Have the next forward pass recorded anew.

    TRL takes log-probabilities from the head's weight without calling the head. A pass that called it, if it is the
    one recorded, makes DeepSpeed gather the weight ahead, for a module that does not come: TRL meets it in flight.

    Args:
        engine: a `DeepSpeedEngine`. Without ZeRO-3 there is no order to forget.
    """
    offload = getattr(engine.optimizer, "parameter_offload", engine.optimizer)
    if not hasattr(offload, "get_param_coordinator"):
        return
    coordinator = offload.get_param_coordinator()
    if not coordinator.is_invalid_trace():
        coordinator._invalidate_trace()
