"""Environments, registered with Gymnasium as "volition/…" when this package is imported."""

import gymnasium

gymnasium.register(
    id="volition/Glimpse-v0",
    entry_point="volition.envs.glimpse:GlimpseEnv",
    vector_entry_point="volition.envs.glimpse:GlimpseVectorEnv",
)
gymnasium.register(
    id="volition/CartPoleNoVelocity-v0",
    entry_point="volition.envs.classic:CartPoleNoVelocity",
    vector_entry_point="volition.envs.classic:CartPoleNoVelocityVector",
    max_episode_steps=500,
)
gymnasium.register(id="volition/Memory-v0", entry_point="volition.envs.classic:Memory")
gymnasium.register(
    id="volition/Windows-v0",
    entry_point="volition.envs.windows:WindowsEnv",
    vector_entry_point="volition.envs.windows:WindowsVectorEnv",
)
gymnasium.register(
    id="volition/Catch-v0",
    entry_point="volition.envs.catch:CatchEnv",
    vector_entry_point="volition.envs.catch:CatchVectorEnv",
)
gymnasium.register(
    id="volition/Go-v0",
    entry_point="volition.envs.go_env:GoEnv",
    vector_entry_point="volition.envs.go_env:GoVectorEnv",
)
gymnasium.register(
    id="volition/Go5x5-v0",
    entry_point="volition.envs.go_env:GoEnv",
    vector_entry_point="volition.envs.go_env:GoVectorEnv",
    kwargs={"size": 5},
)
