"""TorchRL: its collector, losses, GAE and replay buffer in the loop of its own examples, no log, no test."""

from typing import Any

import gymnasium
import torch
from gymnasium.vector import AutoresetMode
from tensordict.nn import TensorDictModule, TensorDictSequential  # pyrefly: ignore[missing-import]
from torch import nn
from torchrl.collectors import Collector  # pyrefly: ignore[missing-import]
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer  # pyrefly: ignore[missing-import]
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement  # pyrefly: ignore[missing-import]
from torchrl.envs import GymEnv, GymWrapper, RewardSum, TransformedEnv  # pyrefly: ignore[missing-import]
from torchrl.modules import (  # pyrefly: ignore[missing-import]
    MLP,
    EGreedyModule,
    OneHotCategorical,
    ProbabilisticActor,
    QValueActor,
    ValueOperator,
)
from torchrl.objectives import (  # pyrefly: ignore[missing-import]
    A2CLoss,
    ClipPPOLoss,
    DQNLoss,
    HardUpdate,
    ValueEstimators,
)

from benchmarks.peers.common import A2C, DQN, ENV, PPO, Meter, Setting, main


def make_env(setting: Setting, seed: int) -> Any:
    if setting.num_envs == 1:
        env = GymEnv(ENV)
    else:  # SerialEnv, TorchRL's own, is slower, and so is SAME_STEP
        mode = {"autoreset_mode": AutoresetMode.DISABLED}
        env = GymWrapper(gymnasium.make_vec(ENV, setting.num_envs, vectorization_mode="sync", vector_kwargs=mode))
    env = TransformedEnv(env, RewardSum())
    env.set_seed(seed)
    return env


def actor_critic(env: Any) -> tuple[Any, Any]:
    def body(out: int, last: float) -> Any:
        net = MLP(in_features=4, out_features=out, num_cells=[64, 64], activation_class=nn.Tanh)
        layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, last if layer is layers[-1] else 2**0.5)
            nn.init.zeros_(layer.bias)
        return net

    actor = ProbabilisticActor(
        TensorDictModule(body(2, 0.01), in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"], spec=env.action_spec_unbatched, distribution_class=OneHotCategorical, return_log_prob=True,
    )  # fmt: skip
    return actor, ValueOperator(body(1, 1.0), in_keys=["observation"])


def count(data: Any, before: int, meter: Meter) -> bool:
    """Hand finished episodes to the meter; whether to stop."""
    done = data["next", "done"].squeeze(-1)
    stop = False
    if done.any():
        for value in data["next", "episode_reward"].squeeze(-1)[done].tolist():
            stop = meter.episode(value, before + data.numel())
    return stop


def on_policy(setting: PPO | A2C, seed: int, meter: Meter) -> None:
    env = make_env(setting, seed)
    actor, critic = actor_critic(env)
    size = setting.num_envs * setting.steps
    epochs, minibatch = (setting.epochs, setting.minibatch) if isinstance(setting, PPO) else (1, size)
    common = {"entropy_coeff": setting.entropy, "critic_coeff": setting.value, "loss_critic_type": "l2"}
    if isinstance(setting, PPO):
        loss: Any = ClipPPOLoss(
            actor, critic, clip_epsilon=setting.clip, normalize_advantage=True,
            clip_value=setting.clip if setting.value_clip else None, **common,
        )  # fmt: skip
    else:
        loss = A2CLoss(actor, critic, **common)
    loss.make_value_estimator(ValueEstimators.GAE, gamma=setting.gamma, lmbda=setting.lam, average_gae=False)
    advantage = loss.value_estimator
    weights = [*actor.parameters(), *critic.parameters()]
    if isinstance(setting, PPO):
        optim: Any = torch.optim.Adam(weights, lr=setting.lr, eps=1e-5)
    else:
        optim = torch.optim.RMSprop(weights, lr=setting.lr, eps=1e-5)
    data_buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(size), sampler=SamplerWithoutReplacement(), batch_size=minibatch
    )
    meter.start()
    collector = Collector(env, actor, frames_per_batch=size, total_frames=setting.total, trust_policy=True)
    steps = 0
    for data in collector:
        stop = count(data, steps, meter)
        steps += data.numel()
        if stop:
            break
        if isinstance(setting, PPO) and setting.anneal:
            left = 1 - (steps - size) / setting.total
            for group in optim.param_groups:
                group["lr"] = setting.lr * left
            if setting.anneal_clip:
                loss.clip_epsilon.fill_(setting.clip * left)
        with torch.no_grad():
            data = advantage(data, params=loss.critic_network_params, target_params=loss.target_critic_network_params)
        data_buffer.empty()
        data_buffer.extend(data.reshape(-1))
        for _ in range(epochs):
            for batch in data_buffer:
                parts = loss(batch)
                total: Any = sum(value for name, value in parts.items() if name.startswith("loss_"))
                optim.zero_grad()
                total.backward()
                nn.utils.clip_grad_norm_(weights, 0.5)
                optim.step()
    collector.shutdown()
    meter.stop(steps)


def off_policy(setting: DQN, seed: int, meter: Meter) -> None:
    env = make_env(setting, seed)
    net = MLP(in_features=4, out_features=2, num_cells=[120, 84], activation_class=nn.ReLU)
    actor = QValueActor(net, in_keys=["observation"], spec=env.action_spec)
    greedy = EGreedyModule(spec=env.action_spec, eps_init=1.0, eps_end=0.05, annealing_num_steps=setting.total // 2)
    replay = TensorDictReplayBuffer(storage=LazyTensorStorage(setting.replay), batch_size=setting.batch)
    loss = DQNLoss(actor, loss_function="l2", delay_value=True, action_space=env.action_spec)
    loss.make_value_estimator(gamma=setting.gamma)
    target = HardUpdate(loss, value_network_update_interval=setting.target_every // setting.train_every)
    optim = torch.optim.Adam(loss.parameters(), lr=setting.lr)
    meter.start()
    collector = Collector(
        env, TensorDictSequential(actor, greedy), frames_per_batch=setting.train_every, total_frames=setting.total,
        init_random_frames=setting.learning_starts, trust_policy=True,
    )  # fmt: skip
    steps = 0
    for data in collector:
        stop = count(data, steps, meter)
        steps += data.numel()
        greedy.step(data.numel())
        replay.extend(data.reshape(-1))
        if stop:
            break
        if steps > setting.learning_starts:
            value = loss(replay.sample())["loss"]
            optim.zero_grad()
            value.backward()
            optim.step()
            target.step()
    collector.shutdown()
    meter.stop(steps)


def train(setting: Setting, seed: int, meter: Meter) -> None:
    torch.manual_seed(seed)
    (off_policy if isinstance(setting, DQN) else on_policy)(setting, seed, meter)  # pyrefly: ignore


if __name__ == "__main__":
    main("TorchRL", train, ("torchrl", "tensordict", "torch", "gymnasium", "numpy"))
