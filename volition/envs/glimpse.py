"""Glimpse-v0: an image that can only be seen through glimpses, to be named after the last one (Mnih et al. 2014)."""

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

Obs = dict[str, Any]
# canvas size (0: the image as it is) and clutter pieces of each task (Mnih et al. 2014, section 4.1)
TASKS = {"centred": (0, 0), "translated-60": (60, 0), "cluttered-60": (60, 4), "cluttered-100": (100, 8)}


class GlimpseVectorEnv(gym.vector.VectorEnv):
    """A batch of episodes of `glimpses` steps: look, look again elsewhere, …, name the image.

    obs = {glimpse `[B, k·g·g]`: ρ(x, l) in [0, 1], location `[B, 2]`: where it was taken}; action = {location
    `[B, 2]` of the next glimpse, clipped to [−1, 1]; label `[B]`}. Only the last step's label counts, for reward 1
    if it is right and 0 otherwise, and the last step's location is never looked at. The first glimpse is taken at a
    uniformly random place. `info["label"]` is the true label of the image now in view. All episodes run in step, and
    a new batch of images begins in the step that ends the old one (SAME_STEP). `reset(options={"images": …,
    "labels": …})` looks at given canvases instead of drawn ones. In numpy, or with `tensors` in torch on `device`.
    """

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
        if task not in TASKS or split not in ("train", "test") or glimpses < 1 or num_envs < 1:
            raise VolitionError(
                f"Glimpse-v0: task {task!r} must be one of {', '.join(TASKS)}, split {split!r} train or test, "
                f"glimpses {glimpses} and num_envs {num_envs} at least 1"
            )
        if isinstance(images, str):
            images = image_data.load(images, Path(data) if data else None)
        pixels, labels = getattr(images, f"{split}_images"), getattr(images, f"{split}_labels")
        self.num_envs, self.glimpses, self.tensors = num_envs, glimpses, tensors
        self.images, self.device = images, torch.device(device)
        self.canvas = Canvas(pixels.to(device), *TASKS[task])
        self.labels = labels.to(device)
        self.sensor = GlimpseSensor(self.canvas.height, self.canvas.width, size, scales)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.single_observation_space = gym.spaces.Dict(
            glimpse=gym.spaces.Box(0.0, 1.0, (scales * size * size,)),
            location=gym.spaces.Box(-1.0, 1.0, (2,)),
        )
        self.single_action_space = gym.spaces.Dict(
            location=gym.spaces.Box(-1.0, 1.0, (2,)), label=gym.spaces.Discrete(images.classes)
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generator = torch.Generator(self.device)
        self._start = self.generator.get_state()
        self.taken = 0  # glimpses taken in the episodes under way; 0: not yet reset
        self.pictures = self.sums = self.label = self.location = self.obs = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict]:
        """Begin B new episodes; `seed` makes everything from here on repeat."""
        super().reset(seed=seed)
        if seed is not None or not self.taken:
            self.generator.manual_seed(int(self.np_random.integers(2**62)))
        options = options or {}
        if "images" in options:
            canvases = torch.as_tensor(options["images"], device=self.device)
            self._begin(canvases, torch.as_tensor(options["labels"], device=self.device))
        else:
            self._draw()
        return self._out(self.obs), self._out({"label": self.label})

    def step(self, action: Obs) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        """Look at the next location or, after the last glimpse, take the label for the answer."""
        if not self.tensors:
            action = tree_map(lambda x: torch.as_tensor(x, device=self.device), action)
        last, info = self.taken == self.glimpses, {}
        done = self._ended if last else self._going
        if last:
            reward = (action["label"] == self.label).float()
            info = {"final_obs": self.obs, "_final_obs": done, "final_info": {"label": self.label}}
            self._draw()
        else:
            reward = self._nothing
            self._look(action["location"].detach().float().clamp(-1.0, 1.0))
        info["label"] = self.label
        if self.tensors:
            return self.obs, reward, done, self._going, info
        return tuple(self._out(x) for x in (self.obs, reward, done, self._going, info))

    def state_dict(self) -> dict[str, Any]:
        """Where the environment stands: the random state its images were drawn from, and how far it has looked."""
        now = {"location": self.location, "taken": self.taken, "generator": self.generator.get_state()}
        return now | {"start": self._start, "batch": self.num_envs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`: the images are drawn again, as they were."""
        if state["batch"] != self.num_envs:
            raise VolitionError(
                f"Glimpse-v0: the saved state is of {state['batch']} environments, not {self.num_envs}"
            )
        self.generator.set_state(state["start"])
        self._draw()
        self._look(state["location"].to(self.device))
        self.taken = state["taken"]
        self.generator.set_state(state["generator"])

    def _draw(self) -> None:
        self._start = self.generator.get_state()
        index = torch.randint(
            len(self.labels), (self.num_envs,), generator=self.generator, device=self.device
        )
        self._begin(self.canvas.draw(index, self.generator), self.labels[index])

    def _begin(self, pictures: Tensor, label: Tensor) -> None:
        self.pictures, self.label, self.taken = pictures, label, 0
        self._nothing = torch.zeros(len(label), device=self.device)
        self._going = torch.zeros(len(label), dtype=torch.bool, device=self.device)
        self._ended = ~self._going
        self.sums = self.sensor.prepare(pictures, out=self.sums)
        self._look(torch.rand(len(label), 2, generator=self.generator, device=self.device) * 2 - 1)

    def _look(self, location: Tensor) -> None:
        self.location, self.taken = location, self.taken + 1
        self.obs = {"glimpse": self.sensor.look(self.sums, location).flatten(1), "location": location}

    def _out(self, tree: Any) -> Any:
        return tree if self.tensors else tree_map(lambda x: x.cpu().numpy().copy(), tree)


class GlimpseEnv(gym.Env):
    """One episode at a time with plain spaces, for libraries that know no others; settings as GlimpseVectorEnv's.

    obs `[k·g·g + 3]`: the glimpse, its location and the share of glimpses taken; action `[2 + classes]` in [−1, 1]:
    the next location and a score per class, of which the largest at the last step is the answer.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 - Gymnasium's way to say it

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        self.render_mode = render_mode
        self.vector = GlimpseVectorEnv(1, **settings)
        glimpse = self.vector.single_observation_space["glimpse"].shape[0]
        low = np.concatenate([np.zeros(glimpse), [-1, -1, 0]]).astype(np.float32)
        self.observation_space = gym.spaces.Box(low, np.ones(glimpse + 3, np.float32))
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2 + self.vector.images.classes,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict]:
        """Begin an episode with a new image."""
        super().reset(seed=seed)
        obs, info = self.vector.reset(seed=seed, options=options)
        return self._flat(obs), {"label": int(info["label"][0])}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Look at `action[:2]` or, after the last glimpse, answer with the largest of `action[2:]`."""
        label = self.vector.label
        parts = {"location": action[None, :2], "label": np.array([action[2:].argmax()])}
        obs, reward, terminated, truncated, info = self.vector.step(parts)
        obs = (
            info["final_obs"] if terminated[0] else obs
        )  # the caller resets: the next image is not for its eyes yet
        return (
            self._flat(obs),
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {"label": int(label[0])},
        )

    def render(self) -> np.ndarray | None:
        """The whole image in grey `[H, W, 3]` uint8 with the area of the widest patch framed in red."""
        if self.render_mode is None:
            return None
        return draw_glimpse(self.vector.pictures[0], self.vector.location[0], self.vector.sensor)

    def _flat(self, obs: Obs) -> np.ndarray:
        share = np.array([self.vector.taken / self.vector.glimpses], np.float32)
        return np.concatenate([obs["glimpse"][0], obs["location"][0], share])


def draw_glimpse(picture: Tensor, location: Tensor, sensor: GlimpseSensor) -> np.ndarray:
    """An image `[H, W]` as grey RGB with a red frame round what the widest patch at `location` `[2]` covers."""
    frame = picture[..., None].repeat(1, 1, 3).cpu().numpy()
    side = sensor.size << (sensor.scales - 1)
    left, top = (
        int((v + 1) / 2 * n) - side // 2 for v, n in zip(location, (sensor.width, sensor.height), strict=True)
    )
    x, y = (np.clip([a, a + side - 1], 0, n - 1) for a, n in ((left, sensor.width), (top, sensor.height)))
    frame[y[0] : y[1] + 1, x] = frame[y, x[0] : x[1] + 1] = (255, 0, 0)
    return frame
