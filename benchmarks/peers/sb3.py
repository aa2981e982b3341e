"""Stable-Baselines3: its own vector environment, its own loop, logging off."""

from collections.abc import Callable

import torch
from stable_baselines3 import A2C as TheirA2C
from stable_baselines3 import DQN as TheirDQN
from stable_baselines3 import PPO as TheirPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from benchmarks.peers.common import A2C, DQN, ENV, PPO, Meter, Setting, main


class Watch(BaseCallback):
    """Looks at the last 100 returns after every roll-out, as Stable-Baselines3's own log does."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter, self.last, self.go_on = meter, None, True

    def _on_step(self) -> bool:
        return self.go_on

    def _on_rollout_end(self) -> None:
        buffer = self.model.ep_info_buffer
        if buffer and buffer[-1] is not self.last:
            self.last = buffer[-1]
            mean = sum(info["r"] for info in buffer) / len(buffer)
            self.go_on = not self.meter.mean(mean, self.num_timesteps)


def falling(value: float, anneal: bool) -> float | Callable[[float], float]:
    return (lambda left: left * value) if anneal else value


def vector_env(setting: Setting, seed: int) -> VecEnv:
    env = setting.env if isinstance(setting, PPO) else ENV
    if env == ENV:
        return make_vec_env(ENV, setting.num_envs, seed=seed)
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    plain = {"frameskip": 1, "repeat_action_probability": 0.0}  # its wrappers skip frames themselves
    return VecFrameStack(make_atari_env(env, setting.num_envs, seed=seed, env_kwargs=plain), 4)


def model(setting: Setting, seed: int) -> BaseAlgorithm:
    env = vector_env(setting, seed)
    common = {"seed": seed, "device": "cpu"}
    if isinstance(setting, PPO):
        return TheirPPO(
            "MlpPolicy" if setting.env == ENV else "CnnPolicy", env, falling(setting.lr, setting.anneal),
            n_steps=setting.steps, batch_size=setting.minibatch,
            n_epochs=setting.epochs, gamma=setting.gamma, gae_lambda=setting.lam,
            clip_range=falling(setting.clip, setting.anneal_clip),
            clip_range_vf=setting.clip if setting.value_clip else None, ent_coef=setting.entropy,
            vf_coef=setting.value, **common,
        )  # fmt: skip
    if isinstance(setting, A2C):
        return TheirA2C(
            "MlpPolicy", env, setting.lr, n_steps=setting.steps, gamma=setting.gamma, gae_lambda=setting.lam,
            ent_coef=setting.entropy, vf_coef=setting.value, **common,
        )  # fmt: skip
    return TheirDQN(
        "MlpPolicy", env, setting.lr, buffer_size=setting.replay, learning_starts=setting.learning_starts,
        batch_size=setting.batch, gamma=setting.gamma, train_freq=setting.train_every,
        target_update_interval=setting.target_every, exploration_fraction=0.5, exploration_final_eps=0.05,
        max_grad_norm=float("inf"), policy_kwargs={"net_arch": [120, 84], "activation_fn": torch.nn.ReLU}, **common,
    )  # fmt: skip


def train(setting: Setting, seed: int, meter: Meter) -> None:
    assert isinstance(setting, PPO | A2C | DQN)
    learner = model(setting, seed)
    meter.start()
    learner.learn(setting.total, callback=Watch(meter))
    meter.stop(learner.num_timesteps)


if __name__ == "__main__":
    main("Stable-Baselines3", train, ("stable-baselines3", "torch", "gymnasium", "numpy"))
