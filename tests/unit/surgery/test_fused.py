"""The GPU's kernels where there is no GPU: interpreted, and compiled for GPUs; and on a GPU where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed")

KERNELS = {
    "products": ("addresses:*i64 dtypes:*i32 chunks:*i64 parts:*fp64", True),
    "combinations": (
        "addresses:*i64 dtypes:*i32 targets:*i64 target_dtypes:*i32 weights:*fp64 plain:*i32 chunks:*i64",
        False,
    ),
}


def test_interpreted_kernels():
    """In a process of its own: Triton decides when it is imported."""
    file = Path(__file__).with_name("interpreted_kernels.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize(
    "gpu", [("cuda", 80, 32), ("cuda", 90, 32), ("hip", "gfx942", 64)], ids=["A100", "H100", "MI300"]
)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "domains, dtypes", [(2, (True, False, False)), (3, (True, True, False)), (8, (True, True, True))]
)
def test_kernels_compile(kernel, gpu, domains, dtypes):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mgs_trl.surgery import fused, kernels

    signature, needs_padding = KERNELS[kernel]
    padded = 1 << (domains - 1).bit_length()
    block = fused.BLOCK // padded if needs_padding else fused.BLOCK
    constants = {"COUNT": domains, "BLOCK": block, **dict(zip(("F32", "BF16", "F16"), dtypes, strict=True))}
    constants |= {"PADDED": padded} if needs_padding else {}
    types = dict(argument.split(":") for argument in signature.split())
    source = ASTSource(
        getattr(kernels, kernel), signature={**types, **dict.fromkeys(constants, "constexpr")}, constexprs=constants
    )
    compiled = triton.compile(source, target=GPUTarget(*gpu))
    assert compiled.asm["cubin" if gpu[0] == "cuda" else "hsaco"]


def test_a_triton_that_cannot_be_imported_is_done_without(tmp_path):
    """In a process of its own, in which the kernels have not been imported."""
    (tmp_path / "triton.py").write_text("raise ImportError('no backends')")
    code = (
        "import torch, pytest\n"
        "from mgs_trl.surgery import gramian\n"
        "with pytest.warns(UserWarning, match='^surgery goes without .* as Triton fails: ImportError: no backends$'):\n"
        "    assert gramian._kernels(torch.device('cuda'), [[torch.zeros(1)]]) is None\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype):
    from mgs_trl.surgery import fused
    from mgs_trl.surgery.gramian import add_gramians, combine_all

    device = torch.device("cuda", torch.cuda.current_device())
    assert fused.works(device)
    vectors = [[torch.randn(length, device=device).to(dtype) for _ in range(3)] for length in (1, 1000, 3_000_001)]
    out = torch.zeros(2, 3, 3, dtype=torch.float64, device=device)
    add_gramians(out, vectors, [0, 1, 1])
    rows = [torch.stack(vector).double() for vector in vectors]
    wanted = torch.stack([rows[0] @ rows[0].T, rows[1] @ rows[1].T + rows[2] @ rows[2].T])
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-8)
    weights = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64, device=device)
    combine_all([vector[-1] for vector in vectors], vectors, [weights.tolist()] * 3)
    for vector, row in zip(vectors, rows, strict=True):
        torch.testing.assert_close(vector[-1], (weights @ row).to(dtype))
