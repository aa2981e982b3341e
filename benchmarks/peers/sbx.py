"""SBX: Stable-Baselines3's loop around jitted JAX updates. What the jit takes is measured on its own."""

from typing import Any

import flax.linen as nn  # pyrefly: ignore[missing-import]
from sbx import DQN as TheirDQN  # pyrefly: ignore[missing-import]
from sbx import PPO as TheirPPO  # pyrefly: ignore[missing-import]

from benchmarks.peers.common import A2C, DQN, PPO, Meter, Setting, cpu_seconds, main, small
from benchmarks.peers.sb3 import Watch, falling, vector_env


def model(setting: Setting, seed: int) -> Any:
    env = vector_env(setting, seed)
    if isinstance(setting, PPO):
        return TheirPPO(
            "MlpPolicy", env, falling(setting.lr, setting.anneal), n_steps=setting.steps, batch_size=setting.minibatch,
            n_epochs=setting.epochs, gamma=setting.gamma, gae_lambda=setting.lam, seed=seed,
            clip_range=falling(setting.clip, setting.anneal_clip), ent_coef=setting.entropy, vf_coef=setting.value,
        )  # fmt: skip
    assert not isinstance(setting, A2C), "SBX has no A2C"
    return TheirDQN(
        "MlpPolicy", env, setting.lr, buffer_size=setting.replay, learning_starts=setting.learning_starts,
        batch_size=setting.batch, gamma=setting.gamma, train_freq=setting.train_every, exploration_fraction=0.5,
        exploration_final_eps=0.05, target_update_interval=setting.target_every, seed=seed,
        policy_kwargs={"net_arch": [120, 84], "activation_fn": nn.relu},
    )  # fmt: skip


def train(setting: Setting, seed: int, meter: Meter) -> None:
    # the jit remembers what it compiled only for the same model: it warms up, and gets its fresh weights back
    learner = model(setting, seed)
    names = ("actor_state", "vf_state") if isinstance(setting, PPO) else ("qf_state",)
    fresh = {name: getattr(learner.policy, name) for name in names}
    few = small(setting).total
    if isinstance(setting, DQN):
        learner.learning_starts = few // 2
    begin = cpu_seconds()
    learner.learn(few)
    first, few = cpu_seconds() - begin, learner.num_timesteps
    if isinstance(setting, DQN):
        learner.learning_starts = setting.learning_starts
    for name, state in fresh.items():
        setattr(learner.policy, name, state)
    meter.start()
    learner.learn(setting.total, callback=Watch(meter))
    meter.stop(learner.num_timesteps)
    meter.compile_seconds = first - few * meter.cpu / meter.steps


if __name__ == "__main__":
    main("SBX", train, ("sbx-rl", "jax", "gymnasium", "numpy"), warm_up=False)
