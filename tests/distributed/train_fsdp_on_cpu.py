"""`-m mgs_trl.train` for test_launch.py: FSDP2 without a GPU, for which accelerate would give DDP."""

import runpy

from tests.distributed.engines import let_fsdp_run_on_cpu

let_fsdp_run_on_cpu()
runpy.run_module("mgs_trl.train", run_name="__main__")
