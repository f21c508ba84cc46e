"""OUTPUT_DIRs written here, with the file formats of docs/metrics.md."""

import json
from pathlib import Path

import numpy as np

DOMAINS = ["chat", "instruction_following", "math"]


def module_names(layers: int) -> tuple[list[str], list[str]]:
    parts = {"self_attn": "attention", "mlp": "mlp", "input_layernorm": "norm"}
    names = [f"model.layers.{i}.{part}" for i in range(layers) for part in parts]
    return ["model.embed_tokens", *names, "lm_head"], ["embedding", *list(parts.values()) * layers, "head"]


def gramians(steps: int, modules: int, domains: int, seed: int = 0, conflict: float = 0.0) -> np.ndarray:
    """Gramians of Gaussian gradients `[steps, modules, domains, domains]`; `conflict` pulls domains 0 and 1 apart."""
    generator = np.random.default_rng(seed)
    gradients = generator.normal(size=(steps, modules, domains, 24))
    direction = generator.normal(size=(modules, 24))
    gradients[:, :, 0] += conflict * direction
    gradients[:, :, 1] -= conflict * direction
    return np.einsum("smdx,smex->smde", gradients, gradients)


def conflict_lines(gramian: np.ndarray, weights: np.ndarray, domains=DOMAINS, layers: int = 2, every: int = 1) -> list:
    modules, kinds = module_names(layers)
    return [
        {
            "step": (i + 1) * every, "domains": domains, "modules": modules, "kinds": kinds,
            "gramian": g.tolist(), "weights": w.tolist(), "dropped": [],
        }
        for i, (g, w) in enumerate(zip(gramian, weights, strict=True))
    ]  # fmt: skip


def metric_lines(steps: int, domains=DOMAINS, evaluate: int = 10, seed: int = 0) -> list:
    generator = np.random.default_rng(seed)
    lines = []
    for step in range(steps + 1):
        if step % evaluate == 0:
            lines.append({"step": step, **{f"eval_domain/{d}/reward": generator.random() for d in domains}})
        if step:
            line = {"step": step, "loss": 0.1, "reward": generator.random(), "entropy": generator.random()}
            line |= {"completions/mean_length": 40.0, "step_time": 2.0 + generator.random()}
            line |= {"seconds/training": 1.0 + generator.random(), "surgery/seconds": generator.random() / 10}
            line |= {"surgery/memory_gib/cpu": 0.25}
            for d in domains:
                for name in ("reward", "entropy", "mean_length", "frac_zero_std", "clipped_ratio", "grad_norm"):
                    line[f"domain/{d}/{name}"] = generator.random() + 0.01
            lines.append(line)
    lines.append({"step": steps, "train_runtime": 9.0})
    return lines


def write_lines(path: Path, lines: list) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_run(directory: Path, steps: int = 60, seed: int = 0, conflict: float = 0.4) -> Path:
    """A whole run of three domains; weights as noisy as PCGrad's."""
    directory.mkdir(parents=True)
    modules = len(module_names(2)[0])
    gramian = gramians(steps, modules, len(DOMAINS), seed, conflict)
    weights = 1 + np.random.default_rng(seed + 1).random((steps, modules, len(DOMAINS))) * [0.4, 0.2, 0.1]
    write_lines(directory / "conflicts.jsonl", conflict_lines(gramian, weights))
    write_lines(directory / "metrics.jsonl", metric_lines(steps, seed=seed))
    (directory / "recipe.yaml").write_text(
        f"model: {{name_or_path: some/model}}\nstrategy: mgs\ntrainer: {{max_steps: {steps}, seed: {seed}}}\n"
        "domains:\n  chat: {verifier: {reward_server: {url: 'http://me:pw@host', api_key: sk-123}}}\n"
        "  instruction_following: {verifier: ifeval}\n  math: {verifier: math}\n"
    )
    launch = {
        "command": "accelerate launch -m mgs_trl.train miniature", "time": "2026-01-01T00:00:00+00:00", "from_step": 0,
        "processes": 2, "device": "cpu", "max_steps": steps, "versions": {"torch": "2.13.0"},
        "settings": {"seed": seed},
    }  # fmt: skip
    (directory / "run.json").write_text(json.dumps({"launches": [launch]}))
    return directory


def embedded(path: Path) -> dict:
    """The data inside a report."""
    text = path.read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    return json.loads(text[start : text.index("</script>", start)])
