"""Environments, registered with Gymnasium as "volition/…" when this package is imported."""

import gymnasium

gymnasium.register(
    id="volition/Glimpse-v0",
    entry_point="volition.envs.glimpse:GlimpseEnv",
    vector_entry_point="volition.envs.glimpse:GlimpseVectorEnv",
)
