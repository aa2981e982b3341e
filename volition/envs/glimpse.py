"""Glimpse-v0: an image that can only be seen through glimpses, to be named after the last (Mnih et al. 2014)."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from volition.core.glimpse import GlimpseSensor
from volition.core.policy import tree_map
from volition.data import images as image_data
from volition.data.canvas import Canvas
from volition.errors import VolitionError

Obs = dict[str, Any]  # of tensors or of arrays
# canvas size (0: the image as it is) and clutter pieces of each task (Mnih et al. 2014, section 4.1)
TASKS = {"centred": (0, 0), "translated-60": (60, 0), "cluttered-60": (60, 4), "cluttered-100": (100, 8)}
PAIRS = {"pairs-100": (100, 0), "addition-100": (100, 0)}  # the same with two digits (Ba et al. 2015, 4.1 and 4.2)
TASKS |= PAIRS


def named(task: str, labels: Tensor) -> Tensor:
    """What is to be answered where digits `[…]`, or in tasks of two digits `[…, 2]`, are shown.

    A pair is named without its order, by a + b·(b + 1)/2 with a ≤ b: 55 names for ten digits; in addition by a + b.
    """
    if task == "addition-100":
        return labels.sum(-1)
    if task == "pairs-100":
        low, high = labels.amin(-1), labels.amax(-1)
        return low + high * (high + 1) // 2
    return labels


class GlimpseVectorEnv(gym.vector.VectorEnv):
    """A batch of episodes of `glimpses` steps: look, look again elsewhere, …, name the image.

    obs = {glimpse `[B, k·g·g]`: ρ(x, l) in [0, 1], location `[B, 2]`: where it was taken}; action = {location `[B, 2]`
    of the next glimpse, clipped to [−1, 1]; label `[B]`}. Only the last step's label counts, for reward 1 if it is
    right and 0 otherwise, and the last step's location is never looked at. The first glimpse is taken at a uniformly
    random place. `info["label"]` is the true label of the image now in view. All episodes run in step, and a new batch
    of images begins in the step that ends the old one (SAME_STEP). `reset(options={"images": …, "labels": …})` looks
    at given canvases instead of drawn ones. In numpy, or with `tensors` in torch on `device`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012 - as Gymnasium has it
    pictures: Tensor  # [B, H, W] uint8: the canvases in view, for those who may see them
    label: Tensor  # [B]: their true labels
    location: Tensor  # [B, 2]: of the glimpse last taken
    obs: dict[str, Tensor]  # what the next action answers

    def __init__(
        self,
        num_envs: int = 1,
        task: str = "cluttered-60",
        glimpses: int = 8,
        size: int = 12,
        scales: int = 3,
        split: str = "train",
        images: str | image_data.LabelledImages = "digits",
        data: str | Path | None = None,
        tensors: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        if task not in TASKS or split not in ("train", "test") or min(glimpses, num_envs, size, scales) < 1:
            raise VolitionError(
                f"Glimpse-v0: task {task!r} must be one of {', '.join(TASKS)}, split {split!r} train or test, and "
                f"glimpses {glimpses}, num_envs {num_envs}, size {size} and scales {scales} at least 1"
            )
        if scales > 1 and size % 2:
            raise VolitionError(f"Glimpse-v0: size {size} must be even where there are several scales ({scales})")
        if isinstance(images, str):
            images = image_data.load(images, Path(data) if data else None)
        pixels, labels = getattr(images, f"{split}_images"), getattr(images, f"{split}_labels")
        self.num_envs, self.glimpses, self.tensors = num_envs, glimpses, tensors
        self.images, self.device = images, torch.device(device)
        digits = 2 if task in PAIRS else 1
        self.canvas = Canvas(pixels.to(device), *TASKS[task], digits=digits)
        self.labels, self.task = labels.to(device), task
        self.sensor = GlimpseSensor(self.canvas.height, self.canvas.width, size, scales)
        largest = torch.tensor(images.classes - 1).expand(digits).squeeze()  # the answer with the largest name
        shape, self.classes = (scales * size * size,), int(named(task, largest)) + 1
        box = gym.spaces.Box(-1.0, 1.0, (2,))
        self.single_observation_space = gym.spaces.Dict(glimpse=gym.spaces.Box(0.0, 1.0, shape), location=box)
        self.single_action_space = gym.spaces.Dict(location=box, label=gym.spaces.Discrete(self.classes))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generator = torch.Generator(self.device)
        self.taken = 0  # glimpses of the episodes under way; 0: not yet reset
        self._sums: Tensor | None = None
        self._given: tuple[Tensor, ...] | None = None
        self._start = self.generator.get_state()  # as it was before the images in view were drawn

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict]:
        """Begin B new episodes; `seed` makes everything from here on repeat."""
        super().reset(seed=seed)
        if seed is not None or not self.taken:
            self.generator.manual_seed(int(self.np_random.integers(2**62)))
        if options and "images" in options:
            self._given = tuple(torch.as_tensor(options[key], device=self.device) for key in ("images", "labels"))
            self._begin(*self._given)
        else:
            self._draw()
        return self._out(self.obs), self._out({"label": self.label})

    def first(self, location: Any) -> Obs:
        """Take the first glimpse of the images in view at `location` `[B, 2]`, by choice and not at random."""
        self.taken = 0
        self._look(torch.as_tensor(location, device=self.device).float().clamp(-1.0, 1.0))
        return self._out(self.obs)

    def step(self, actions: Obs) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        """Look at the next location or, after the last glimpse, take the label for the answer."""
        if not self.tensors:
            actions = tree_map(lambda x: torch.as_tensor(x, device=self.device), actions)
        ended = self.taken == self.glimpses
        terminated = torch.full_like(self.label, ended, dtype=torch.bool)
        reward, info = torch.zeros(len(self.label), device=self.device), {}
        if ended:
            reward = (actions["label"] == self.label).float()
            info = {"final_obs": self.obs, "_final_obs": terminated, "final_info": {"label": self.label}}
            self._draw()
        else:
            self._look(actions["location"].float().clamp(-1.0, 1.0))
        info["label"] = self.label
        return self._out((self.obs, reward, terminated, torch.zeros_like(terminated), info))

    def state_dict(self) -> dict[str, Any]:
        """Where the environment stands: the random state its images were drawn from, and where it looked last."""
        if self._given is not None:
            raise VolitionError("Glimpse-v0 cannot save episodes on given images, only on drawn ones")
        random = {"start": self._start, "generator": self.generator.get_state()}
        return random | {"location": self.location, "taken": self.taken, "num_envs": self.num_envs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`: the images are drawn again, as they were."""
        if state["num_envs"] != self.num_envs:
            raise VolitionError(f"Glimpse-v0 was saved with {state['num_envs']} environments, not {self.num_envs}")
        self.generator.set_state(state["start"])
        self._draw()
        self._look(state["location"].to(self.device))
        self.taken = state["taken"]
        self.generator.set_state(state["generator"])

    def _draw(self) -> None:
        self._given = None
        self._start = self.generator.get_state()
        shape = (self.num_envs,) if self.canvas.digits == 1 else (self.num_envs, self.canvas.digits)
        index = torch.randint(len(self.labels), shape, generator=self.generator, device=self.device)
        self._begin(self.canvas.draw(index, self.generator), named(self.task, self.labels[index]))

    def _begin(self, pictures: Tensor, label: Tensor) -> None:
        self.pictures, self.label, self.taken = pictures, label, 0
        self._sums = self.sensor.prepare(pictures, out=self._sums)
        self._look(torch.rand(len(label), 2, generator=self.generator, device=self.device) * 2 - 1)

    def _look(self, location: Tensor) -> None:
        assert self._sums is not None
        self.location, self.taken = location, self.taken + 1
        self.obs = {"glimpse": self.sensor.look(self._sums, location).flatten(1), "location": location}

    def _out(self, tree: Any) -> Any:
        return tree if self.tensors else tree_map(lambda x: x.cpu().numpy().copy(), tree)


class GlimpseEnv(gym.Env):
    """One episode at a time with plain spaces, for libraries that know no others; settings as GlimpseVectorEnv's.

    obs `[k·g·g + 3]`: the glimpse, its location and the share of glimpses taken; action `[2 + classes]` in [−1, 1]:
    the next location and a score per class, of which the largest at the last step is the answer.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        self.render_mode = render_mode
        self.vector = GlimpseVectorEnv(1, **settings)
        values = self.vector.sensor.scales * self.vector.sensor.size**2
        low = np.concatenate([np.zeros(values), [-1, -1, 0]]).astype(np.float32)
        self.observation_space = gym.spaces.Box(low, np.ones(values + 3, np.float32))
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2 + self.vector.classes,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode with a new image."""
        super().reset(seed=seed)
        # all chance comes from np_random, so that an episode can be lived through again
        obs, info = self.vector.reset(seed=int(self.np_random.integers(2**62)), options=options)
        self._shown = self.vector.pictures[0], self.vector.location[0]
        return self._flat(obs, 1), {"label": int(info["label"][0])}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Look at `action[:2]` or, after the last glimpse, answer with the largest of `action[2:]`."""
        label = int(self.vector.label[0])
        self._shown = self.vector.pictures[0], self.vector.location[0]
        parts = {"location": action[None, :2], "label": np.array([action[2:].argmax()])}
        obs, reward, terminated, _, info = self.vector.step(parts)
        if terminated[0]:  # the next image is not for these eyes before they ask for it by reset
            obs, taken = info["final_obs"], self.vector.glimpses
        else:
            taken = self.vector.taken
            self._shown = self.vector.pictures[0], self.vector.location[0]
        return self._flat(obs, taken), float(reward[0]), bool(terminated[0]), False, {"label": label}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The whole image `[H, W, 3]` uint8 in grey, the area of the widest patch framed in red."""
        if self.render_mode is None:
            return None
        sensor, (picture, location) = self.vector.sensor, self._shown  # of this episode, also when it has just ended
        frame = picture[:, :, None].repeat(1, 1, 3).cpu().numpy()
        side = sensor.size << (sensor.scales - 1)
        extent = np.array([sensor.width, sensor.height])
        first = np.round((location.cpu().numpy() + 1) / 2 * extent).astype(int) - side // 2
        (left, top), (right, bottom) = np.maximum(first, 0), np.minimum(first + side, extent) - 1
        frame[[top, bottom], left : right + 1] = frame[top : bottom + 1, [left, right]] = (255, 0, 0)
        return frame

    def _flat(self, obs: Obs, taken: int) -> np.ndarray:
        share = np.array([taken / self.vector.glimpses], np.float32)
        return np.concatenate([obs["glimpse"][0], obs["location"][0], share])
