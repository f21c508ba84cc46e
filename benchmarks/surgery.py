"""Speed of surgery against the cost of copying the same gradients, as ratios in one run.

    python benchmarks/surgery.py [--millions 118] [--domains 2 3 4 8] [--repeats 5]

Each figure is a median over repeats in which the contenders take turns: the whole surgery (Gramians, weights, combined
gradient in place), `clone()` of the same buffers, and the loop of per-tensor clones, dot products and `.item()` calls
that a direct implementation of PCGrad makes; on a GPU also surgery without its fused kernels. Gradients have the
shapes of a Qwen2 decoder.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mgs_trl.surgery import Surgeon, SurgeryRule, gramian, partition
from mgs_trl.surgery.gramian import add_gramians, combine_all


def shapes(millions: int) -> dict[str, tuple[int, ...]]:
    """Parameters of a Qwen2 decoder of about that size (hidden 768, tied embedding of 32,000)."""
    hidden, inner = 768, 3072
    layer = {
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.q_proj.bias": (hidden,),
        "self_attn.k_proj.weight": (hidden // 4, hidden),
        "self_attn.k_proj.bias": (hidden // 4,),
        "self_attn.v_proj.weight": (hidden // 4, hidden),
        "self_attn.v_proj.bias": (hidden // 4,),
        "self_attn.o_proj.weight": (hidden, hidden),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    result: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32_000, hidden), "model.norm.weight": (hidden,)}
    index = 0
    while sum(torch.Size(s).numel() for s in result.values()) < millions * 1e6:
        result |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
        index += 1
    return result


def surgery(gradients: list[dict[str, torch.Tensor]], surgeon: Surgeon, modules, device: torch.device) -> None:
    domains = len(gradients)
    products = torch.zeros(len(modules), domains, domains, dtype=torch.float64, device=device)
    module_of = [index for index, module in enumerate(modules) for _ in module.parameters]
    vectors = [[g[name].view(-1) for g in gradients] for module in modules for name in module.parameters]
    add_gramians(products, vectors, module_of)
    weights = surgeon.decide(products, step=1).weights.tolist()
    combine_all([vector[-1] for vector in vectors], vectors, [weights[index] for index in module_of])


def per_tensor_loop(gradients: list[dict[str, torch.Tensor]]) -> None:
    """PCGrad as it is usually written: clones, and a host synchronisation per pair and tensor."""
    for name in gradients[0]:
        originals = [g[name] for g in gradients]
        projected = [g.clone() for g in originals]
        for i, gradient in enumerate(projected):
            for j, other in enumerate(originals):
                if i != j:
                    inner = (gradient * other).sum()
                    norm = other.norm() ** 2
                    if norm.item() > 1e-12 and inner.item() < 0:
                        gradient -= inner / norm * other
        gradients[-1][name].copy_(torch.stack(projected).sum(0))


@contextmanager
def without_kernels() -> Iterator[None]:
    """Torch's operations, on a GPU too."""
    kernels, gramian._kernels = gramian._kernels, lambda *_: None
    try:
        yield
    finally:
        gramian._kernels = kernels


def timed(function, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, default=118)
    parser.add_argument("--domains", type=int, nargs="+", default=[2, 3, 4, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--granularity", default="block")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    names = shapes(arguments.millions)
    modules = partition(list(names), arguments.granularity)
    count = sum(torch.Size(s).numel() for s in names.values())
    print(f"{count / 1e6:.0f}M parameters, {len(names)} tensors, {len(modules)} modules, {arguments.dtype}, {device}, "
          f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {arguments.repeats}")  # fmt: skip
    print(f"{'domains':>7} {'surgery s':>10} {'clone s':>8} {'loop s':>8} {'surgery/clone':>14} {'loop/surgery':>13}"
          + (f" {'without kernels s':>18}" if device.type == "cuda" else ""))  # fmt: skip
    for domains in arguments.domains:
        shared = {name: torch.randn(shape, device=device) for name, shape in names.items()}
        dtype = getattr(torch, arguments.dtype)
        sign = [1.0, -1.0]
        gradients = [
            {name: (torch.randn_like(g) + 0.3 * sign[d % 2] * g).to(dtype) for name, g in shared.items()}
            for d in range(domains)
        ]
        surgeon = Surgeon([str(d) for d in range(domains)], modules, SurgeryRule())
        times: dict[str, list[float]] = {"surgery": [], "clone": [], "loop": [], "torch": []}
        for repeat in range(arguments.repeats + 1):
            taken = {
                "surgery": timed(lambda g=gradients, s=surgeon: surgery(g, s, modules, device), device),
                "clone": timed(lambda g=gradients: [t.clone() for per in g for t in per.values()], device),
                "loop": timed(lambda g=gradients: per_tensor_loop(g), device),
            }
            if device.type == "cuda":
                with without_kernels():
                    taken["torch"] = timed(lambda g=gradients, s=surgeon: surgery(g, s, modules, device), device)
            for name, seconds in taken.items() if repeat else ():  # the first round warms up
                times[name].append(seconds)
        s, c, n = (statistics.median(times[name]) for name in ("surgery", "clone", "loop"))
        print(f"{domains:>7} {s:>10.4f} {c:>8.4f} {n:>8.4f} {s / c:>14.2f} {n / s:>13.2f}"
              + (f" {statistics.median(times['torch']):>18.4f}" if times["torch"] else ""), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
