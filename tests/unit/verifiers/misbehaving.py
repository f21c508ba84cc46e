"""Functions that do to a worker whatever a verifier can do. Imported by tests and by worker processes."""

import os
import re
import signal
import subprocess
import sys
import time


def echo(value):
    return value


def pid(_value=None):
    return os.getpid()


held = []


def hold(megabytes):
    held.append(bytearray(megabytes * 2**20))


def allocate(megabytes):
    return len(bytearray(megabytes * 2**20)) // 2**20


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def act(what):
    """Misbehave as named, else give the name back."""
    if what == "hang":
        while True:
            pass
    if what == "hang in C":  # holds the interpreter lock, so no thread or signal handler of Python could end it
        re.match(r"(a+)+$", "a" * 64 + "b")
    if what == "raise":
        raise RuntimeError("as asked")
    if what == "exit":
        sys.exit(3)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "memory":
        bytearray(64 * 2**30)
    if what == "print":
        print("noise on stdout")
        os.write(1, b"\x00\x00\x00\x05noise")
    if what == "unpicklable":
        return lambda: None
    return what


def hang_ignoring_signals(path):
    """Hang where Python cannot help, after leaving the process id in `path`."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    act("hang in C")


# Reward functions as TRL calls them


def length_reward(completions, **columns):
    return [float(len(completion)) for completion in completions]


def numpy_reward(completions, **columns):
    import numpy as np

    return [np.float32(len(completion)) for completion in completions]


def array_reward(completions, **columns):
    import numpy as np

    return np.array([len(completion) for completion in completions])


def nested_reward(completions, **columns):
    return [[1.0, 2.0] for _ in completions]


def scalar_reward(completions, **columns):
    import numpy as np

    return np.float32(1.0)


def text_reward(completions, **columns):
    return "1" * len(completions)


def huge_reward(completions, **columns):
    return [10**400 if completion == "huge" else 1.0 for completion in completions]


def generator_reward(completions, **columns):
    return (1 / (completion != "raise") for completion in completions)


def loud_reward(completions, **columns):
    """Write more than a pipe holds, in every way."""
    for _ in range(2000):
        print("x" * 100)
    os.write(1, b"y" * 100_000)
    subprocess.run([sys.executable, "-c", "print('z' * 100_000)"], check=True)
    return [1.0] * len(completions)


def cat_reward(completions, **columns):
    """The length of what a program finds on the stdin it inherits."""
    return [float(len(subprocess.run(["cat"], capture_output=True, check=True).stdout)) for _ in completions]


def input_reward(completions, **columns):
    return [float(input()) for _ in completions]


def moody_reward(completions, **columns):
    """Score 1.0, except for completions that name a mood."""
    moods = {"nan": float("nan"), "inf": float("inf"), "none": None}
    scores = []
    for completion in completions:
        if completion == "raise":
            raise ZeroDivisionError("moody")
        if completion == "hang":
            act("hang in C")
        scores.append(moods.get(completion, 1.0))
    return scores


def short_reward(completions, **columns):
    return [1.0] * (len(completions) - 1)


def column_reward(completions, ending, bonus=None, **columns):
    return [float(text.endswith(end)) for text, end in zip(completions, ending, strict=True)]


def stateful_reward(completions, trainer_state, **columns):
    return [float(trainer_state.global_step)] * len(completions)


async def async_length_reward(completions, **columns):
    return [float(len(completion)) for completion in completions]


not_a_function = 3
