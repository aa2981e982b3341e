"""Tianshou 2: its trainer and collector, no test steps, no log, no bars."""

from typing import Any

import gymnasium
import numpy as np
import torch
from tianshou.algorithm import A2C as TheirA2C  # pyrefly: ignore[missing-import]
from tianshou.algorithm import DQN as TheirDQN  # pyrefly: ignore[missing-import]
from tianshou.algorithm import PPO as TheirPPO  # pyrefly: ignore[missing-import]
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy  # pyrefly: ignore[missing-import]
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy  # pyrefly: ignore[missing-import]
from tianshou.algorithm.optim import (  # pyrefly: ignore[missing-import]
    AdamOptimizerFactory,
    LRSchedulerFactoryLinear,
    RMSpropOptimizerFactory,
)
from tianshou.data import Collector, CollectStats, VectorReplayBuffer  # pyrefly: ignore[missing-import]
from tianshou.env import DummyVectorEnv  # pyrefly: ignore[missing-import]
from tianshou.trainer import OffPolicyTrainerParams, OnPolicyTrainerParams  # pyrefly: ignore[missing-import]
from tianshou.utils.net.common import Net  # pyrefly: ignore[missing-import]
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic  # pyrefly: ignore[missing-import]
from torch import nn

from benchmarks.peers.common import A2C, DQN, ENV, PPO, Meter, Setting, Solved, main


def actor_critic(env: gymnasium.Env) -> tuple[Any, Any]:
    def body() -> Any:
        return Net(state_shape=env.observation_space.shape, hidden_sizes=(64, 64), activation=nn.Tanh)

    actor = DiscreteActor(preprocess_net=body(), action_shape=2, softmax_output=False)
    critic = DiscreteCritic(preprocess_net=body())
    for net, last in ((actor, 0.01), (critic, 1.0)):
        layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, last if layer is layers[-1] else 2**0.5)
            nn.init.zeros_(layer.bias)
    return DiscreteActorPolicy(actor=actor, action_space=env.action_space), critic


def algorithm(setting: Setting, env: gymnasium.Env) -> Any:
    if isinstance(setting, DQN):
        net = Net(state_shape=env.observation_space.shape, action_shape=2, hidden_sizes=(120, 84))
        policy = DiscreteQLearningPolicy(model=net, action_space=env.action_space, eps_training=1.0)
        return TheirDQN(
            policy=policy, optim=AdamOptimizerFactory(lr=setting.lr), gamma=setting.gamma, is_double=False,
            target_update_freq=setting.target_every // setting.train_every,
        )  # fmt: skip
    policy, critic = actor_critic(env)
    common = {
        "policy": policy, "critic": critic, "gamma": setting.gamma, "gae_lambda": setting.lam,
        "ent_coef": setting.entropy, "vf_coef": setting.value, "max_grad_norm": 0.5,
    }  # fmt: skip
    if isinstance(setting, A2C):
        return TheirA2C(optim=RMSpropOptimizerFactory(lr=setting.lr, eps=1e-5), **common)
    optim = AdamOptimizerFactory(lr=setting.lr, eps=1e-5)
    if setting.anneal:
        optim.with_lr_scheduler_factory(
            LRSchedulerFactoryLinear(1, setting.total, setting.num_envs * setting.steps),
        )
    return TheirPPO(optim=optim, eps_clip=setting.clip, value_clip=setting.value_clip, **common)


def train(setting: Setting, seed: int, meter: Meter) -> None:
    np.random.seed(seed)
    torch.manual_seed(seed)
    env = gymnasium.make(ENV)
    envs = DummyVectorEnv([lambda: gymnasium.make(ENV) for _ in range(setting.num_envs)])
    envs.seed(seed)
    learner = algorithm(setting, env)
    before = 0  # steps before the collection under way

    class Stats(CollectStats):
        def update_at_episode_done(self, episode_batch: Any, episode_return: float, *rest: Any, **more: Any) -> None:
            super().update_at_episode_done(episode_batch, episode_return, *rest, **more)
            if meter.episode(float(episode_return), before + self.n_collected_steps):
                raise Solved

    def begin_step(epoch: int, steps: int) -> None:
        nonlocal before
        if isinstance(setting, DQN):
            before = setting.learning_starts + steps
            learner.policy.set_eps_training(max(0.05, 1 - 0.95 * before / (setting.total / 2)))
        else:
            before = steps
            if isinstance(setting, PPO) and setting.anneal_clip:
                learner.eps_clip = setting.clip * (1 - steps / setting.total)

    size = setting.replay if isinstance(setting, DQN) else setting.num_envs * setting.steps
    collector = Collector(learner, envs, VectorReplayBuffer(size, setting.num_envs), collect_stats_class=Stats)
    quiet = {"max_epochs": 1, "training_collector": collector, "training_fn": begin_step} | {
        "verbose": False, "show_progress": False,
    }  # fmt: skip
    meter.start()
    try:
        if isinstance(setting, DQN):
            collector.reset()
            collector.collect(n_step=setting.learning_starts, random=True)
            params = OffPolicyTrainerParams(
                epoch_num_steps=setting.total - setting.learning_starts, batch_size=setting.batch,
                collection_step_num_env_steps=setting.train_every,
                update_step_num_gradient_steps_per_sample=1 / setting.train_every, **quiet,
            )  # fmt: skip
        else:
            several = isinstance(setting, PPO)
            params = OnPolicyTrainerParams(
                epoch_num_steps=setting.total, collection_step_num_env_steps=size,
                batch_size=setting.minibatch if several else None,
                update_step_num_repetitions=setting.epochs if several else 1, **quiet,
            )  # fmt: skip
        learner.run_training(params)
    except Solved:
        pass
    # the trainer counts from where it begins
    meter.stop(collector.collect_step + (setting.learning_starts if isinstance(setting, DQN) else 0))


if __name__ == "__main__":
    main("Tianshou", train, ("tianshou", "torch", "gymnasium", "numpy"))
