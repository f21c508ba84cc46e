"""Rollouts through vLLM, colocated on CPU or served: how the policy's weights get there, and whether they did."""
