"""Peak memory that surgery adds to a step, over the gradient it works on.

    python benchmarks/memory.py [--millions 118] [--domains 2 3 4 8]

One process stands for one rank: what it holds is the rank's shard. The gradient's bytes are the unit; T domains need
T - 1 copies of it, since the last domain's is overwritten in place. What the peak shows beyond that are temporaries.
On a GPU the allocator's peak is read, elsewhere the resident set is sampled by a thread.
"""

import argparse
import ctypes
import sys
import threading
import time

import torch
from torch import nn

from mgs_trl.engines import DomainGradients, LocalEngine
from mgs_trl.surgery import Surgeon, SurgeryRule, partition


class Peak:
    """Bytes at the peak of a `with` block beyond those at its start."""

    def __init__(self, device: torch.device):
        self.device = device
        self.bytes = 0

    def _now(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def __enter__(self) -> "Peak":
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        elif sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # what earlier windows freed must not pass for free room
        self._start, self._running = self._now(), True
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while self._running:
            self.bytes = max(self.bytes, self._now() - self._start)
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        self._running = False
        self._thread.join()
        self.bytes = max(self.bytes, self._now() - self._start)


def decoder(millions: int, device: torch.device) -> dict[str, nn.Parameter]:
    """Parameters of a decoder with layers of about 7 million (hidden 768) and an embedding of 32,000 rows."""
    shapes = {"model.embed_tokens.weight": (32_000, 768)}
    index = 0
    while sum(torch.Size(shape).numel() for shape in shapes.values()) < millions * 1e6:
        layer = f"model.layers.{index}"
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (768, 768) for name in "qkvo"}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (2048, 768) for name in ("gate", "up", "down")}
        shapes[f"{layer}.input_layernorm.weight"] = (768,)
        index += 1
    return {name: nn.Parameter(torch.randn(shape, device=device)) for name, shape in shapes.items()}


def window(parameters: dict[str, nn.Parameter], domains: int, offload: bool, device: torch.device) -> float:
    """Extra peak of one window, in gradients."""
    modules = partition(parameters)
    engine = LocalEngine(nn.Module(), parameters, device)
    collector = DomainGradients(engine, modules, domains, offload=offload)
    surgeon = Surgeon([f"domain{d}" for d in range(domains)], modules, SurgeryRule())
    size = sum(parameter.numel() * 4 for parameter in parameters.values())
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    with Peak(device) as peak:
        for domain in range(domains - 1):
            collector.keep(domain)
            for parameter in parameters.values():
                parameter.grad = torch.randn_like(parameter)
        collector.resolve(domains - 1, surgeon, 1)
    return peak.bytes / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, default=118)
    parser.add_argument("--domains", type=int, nargs="+", default=[2, 3, 4, 8])
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parameters = decoder(arguments.millions, device)
    window(parameters, 2, False, device)  # whatever is allocated once and for all
    print(f"{sum(p.numel() for p in parameters.values()) / 1e6:.0f} million parameters, float32, {device}")
    print("domains   copies   peak/gradient   temporaries")
    for domains in arguments.domains:
        peak = window(parameters, domains, False, device)
        print(f"{domains:7}   {domains - 1:6}   {peak:13.3f}   {peak - (domains - 1):+11.3f}")
        if device.type == "cuda":
            print(f"{domains:7}   offload  {window(parameters, domains, True, device):13.3f}")


if __name__ == "__main__":
    main()
