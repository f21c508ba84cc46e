"""`resolve_conflicts` in a plain torch loop: two regression tasks that share a network.

python examples/custom_loop.py
"""

import torch
from torch import nn

from mgs_trl.surgery import resolve_conflicts

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
tasks = {"up": lambda x: x.sum(1, keepdim=True), "down": lambda x: -x[:, :4].sum(1, keepdim=True)}

for step in range(200):
    gradients = {}
    for name, target in tasks.items():
        inputs = torch.randn(64, 8)
        loss = nn.functional.mse_loss(model(inputs), target(inputs))
        loss.backward()
        gradients[name] = {n: p.grad for n, p in model.named_parameters()}
        optimizer.zero_grad(set_to_none=True)  # the next task starts from zero

    combined, report = resolve_conflicts(gradients, granularity="layer", seed=0, step=step)

    for name, parameter in model.named_parameters():
        parameter.grad = combined[name]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if step % 50 == 0:
        cosine = report.metrics()["conflict/down~up/cosine"]
        print(f"step {step}: cosine {cosine:+.2f}, surgery removed {report.removed_overall():.0%} of the update")
