"""`-m mgs_trl.train` for test_launch.py: where DeepSpeed's JSON is among the arguments and there is no GPU, accelerate
looks for no backend, and trains one rank."""

import runpy

from accelerate.state import PartialState

prepare_backend = PartialState._prepare_backend


def gloo_at_least(self, *args):
    backend, kind = prepare_backend(self, *args)
    return backend or "gloo", kind


PartialState._prepare_backend = gloo_at_least
runpy.run_module("mgs_trl.train", run_name="__main__")
