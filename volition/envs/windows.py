"""Windows-v0: a window is moved and rescaled over an image until it has found the objects (Jie 2016, Caicedo 2015)."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from volition.core.policy import tree_map
from volition.core.windows import (
    ACTIONS,
    CAICEDO,
    HISTORY,
    HIT,
    area,
    iou,
    moves,
    remember,
    rewards,
    transform,
    trigger_rewards,
    whole,
)
from volition.data import boxes as box_data
from volition.errors import VolitionError

Obs = dict[str, Any]  # of tensors or of arrays
# actions and how many of them an agent remembers; 10 in Caicedo & Lazebnik (2015), section 3.2
AGENTS = {"tree": (ACTIONS, HISTORY), "trigger": (CAICEDO, 10)}


class WindowsVectorEnv(gym.vector.VectorEnv):
    """A batch of episodes of at most `steps` moves of a window, which begins as the whole image.

    obs = {image `[B]`: its number in `images`, window `[B, 4]`: x1, y1, x2, y2 in pixels, history `[B, H]`: the last
    actions + 1, the newest last, 0 for none}; an agent looks at the pixels by itself, since it is cheaper to do so for
    all windows of an image at once. Agent "tree" has the 13 `ACTIONS` and `rewards` of Jie et al. (2016), H = 50, and
    is truncated after `steps`; "trigger" has the 9 of Caicedo & Lazebnik (2015) and their rewards, H = 10, and its
    trigger terminates the episode. With `label`, the name of a class, only objects of this class count. Images without
    an object are left out; the others come in random order, each once, then in another order.

    `payoffs` `[B, A]` says what each action would now pay, for those who may know (guided exploration), and
    `info["found"]` how many objects the episode has found. A new image begins in the step that ends the old one
    (SAME_STEP). `reset(options={"images": …})` begins with the images of these numbers. In numpy, or with `tensors` in
    torch on `device`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012 - as Gymnasium has it
    image: Tensor  # [B]
    window: Tensor  # [B, 4]
    history: Tensor  # [B, H] int8
    hit: Tensor  # [B, M]: the objects found in this episode
    taken: Tensor  # [B]: actions since its beginning
    payoffs: Tensor  # [B, A]
    obs: dict[str, Tensor]  # what the next action answers

    def __init__(
        self,
        num_envs: int = 1,
        images: str | box_data.BoxedImages = "scenes",
        agent: str = "tree",
        steps: int = 50,
        label: str | None = None,
        split: str = "train",
        data: str | Path | None = None,
        tensors: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        if agent not in AGENTS or min(num_envs, steps) < 1:
            raise VolitionError(
                f"Windows-v0: agent {agent!r} must be one of {', '.join(AGENTS)}, and num_envs {num_envs} and steps "
                f"{steps} at least 1"
            )
        if isinstance(images, str):
            images = box_data.load(images, Path(data) if data else None, split)
        if label is not None and label not in images.classes:
            raise VolitionError(
                f"Windows-v0: label {label!r} is no class of {images.name}: {', '.join(images.classes)}"
            )
        self.num_envs, self.steps, self.tensors = num_envs, steps, tensors
        self.images, self.agent, self.device = images, agent, torch.device(device)
        counts = images.label >= 0 if label is None else images.label == images.classes.index(label)
        self.objects = (images.boxes * counts.unsqueeze(-1)).to(device)
        self.size = images.size.to(device)
        self._eligible = (area(self.objects) > 0).any(1).nonzero()[:, 0]
        if not len(self._eligible):
            raise VolitionError(f"Windows-v0: no image of {images.name} has an object{f' {label}' if label else ''}")
        self._actions, self._memory = AGENTS[agent]
        self._trigger = CAICEDO.index("trigger") if agent == "trigger" else -1
        limit = float(images.size.max())
        self.single_observation_space = gym.spaces.Dict(
            image=gym.spaces.Discrete(len(images)),
            window=gym.spaces.Box(0.0, limit, (4,)),
            history=gym.spaces.Box(0, len(self._actions), (self._memory,), np.int8),
        )
        self.single_action_space = gym.spaces.Discrete(len(self._actions))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generator = torch.Generator(self.device)
        self._start = self.generator.get_state()  # as it was before the present order of the images was drawn
        self._order, self._next = self._eligible[:0], 0  # that order, and the place in it
        self._renews = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict]:
        """Begin B new episodes; `seed` makes everything from here on repeat."""
        super().reset(seed=seed)
        if seed is not None or not len(self._order):
            self.generator.manual_seed(int(self.np_random.integers(2**62)))
            self._shuffle()
        if options and "images" in options:
            image = torch.as_tensor(options["images"], dtype=torch.int64, device=self.device)
            if image.shape != (self.num_envs,) or image.min() < 0 or image.max() >= len(self.images):
                raise VolitionError(
                    f"Windows-v0: reset wants one image for each of {self.num_envs} environments, by numbers below "
                    f"{len(self.images)}; it got {image.tolist()}"
                )
        else:
            image = self._draw(self.num_envs)
        self._begin(image)
        return self._out(self.obs), self._out({"found": self.hit.sum(1)})

    def step(self, actions: Any) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        """Take one action in every image."""
        action = torch.as_tensor(actions, device=self.device).long().unsqueeze(1)
        reward = self.payoffs.gather(1, action).squeeze(1)
        self.window = self._after.gather(1, action.unsqueeze(-1).expand(-1, -1, 4)).squeeze(1)
        self.history, self.taken = remember(self.history, action.squeeze(1)), self.taken + 1
        terminated = action.squeeze(1) == self._trigger
        truncated = (self.taken >= self.steps) & ~terminated
        self._stand()
        info, ended = {}, terminated | truncated
        if self._renews and ended.any():
            info = {"final_obs": self.obs, "_final_obs": ended, "final_info": {"found": self.hit.sum(1)}}
            self._renew(ended)
        info["found"] = self.hit.sum(1)
        return self._out((self.obs, reward, terminated, truncated, info))

    def state_dict(self) -> dict[str, Any]:
        """Where the episodes stand, and which images come next."""
        now = {name: getattr(self, name) for name in ("image", "window", "history", "hit", "taken")}
        random = {"start": self._start, "next": self._next, "generator": self.generator.get_state()}
        return random | now | {"num_envs": self.num_envs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        if state["num_envs"] != self.num_envs:
            raise VolitionError(f"Windows-v0 was saved with {state['num_envs']} environments, not {self.num_envs}")
        self.generator.set_state(state["start"])
        self._shuffle()
        self._next = state["next"]
        self.generator.set_state(state["generator"])
        for name in ("image", "window", "history", "hit", "taken"):
            setattr(self, name, state[name].to(self.device))
        self._stand()

    def _shuffle(self) -> None:
        self._start = self.generator.get_state()
        count = len(self._eligible)
        self._order = self._eligible[torch.randperm(count, generator=self.generator, device=self.device)]
        self._next = 0

    def _draw(self, count: int) -> Tensor:
        """The next `count` images in order."""
        parts = []
        while count:
            if self._next == len(self._order):
                self._shuffle()
            parts.append(self._order[self._next : self._next + count])
            self._next += len(parts[-1])
            count -= len(parts[-1])
        return torch.cat(parts)

    def _begin(self, image: Tensor) -> None:
        self.image, self.window = image, whole(self.size[image])
        self.history = torch.zeros(len(image), self._memory, dtype=torch.int8, device=self.device)
        self.hit = torch.zeros(len(image), self.objects.shape[1], dtype=torch.bool, device=self.device)
        self.taken = torch.zeros_like(image)
        self._stand()

    def _renew(self, ended: Tensor) -> None:
        self.image = self.image.masked_scatter(ended, self._draw(int(ended.sum())))
        column = ended.unsqueeze(1)
        self.window = torch.where(column, whole(self.size[self.image]), self.window)
        self.history, self.hit = self.history * ~column, self.hit & ~column
        self.taken = self.taken * ~ended
        self._stand()

    def _stand(self) -> None:
        """All that follows from where the windows are: what they have found, and what each action leads to and pays."""
        objects, size = self.objects[self.image], self.size[self.image]
        self._after = moves(self.window, size) if self.agent == "tree" else transform(self.window, size)
        windows = torch.cat([self.window.unsqueeze(1), self._after], 1)
        overlap = iou(windows, objects)
        now, after = overlap[:, 0], overlap[:, 1:]
        self.hit = self.hit | (now > HIT)
        if self.agent == "tree":
            self.payoffs = rewards(now, after, self.hit)
        else:
            self.payoffs = trigger_rewards(now, after)
            self._after = torch.cat([self._after, self.window.unsqueeze(1)], 1)
        self.obs = {"image": self.image, "window": self.window, "history": self.history}

    def _out(self, tree: Any) -> Any:
        return tree if self.tensors else tree_map(lambda x: x.cpu().numpy().copy(), tree)


class WindowsEnv(gym.Env):
    """One episode at a time, in pixels, for libraries that know no others; settings as WindowsVectorEnv's.

    obs = {patch `[side, side, 3]` uint8: what is in the window, whole `[side, side, 3]`: the image, window `[4]`: x1,
    y1, x2, y2 in shares of the image, history `[H · A]`: one bit for each action remembered, the newest last}.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, render_mode: str | None = None, side: int = 64, **settings: Any) -> None:
        self.render_mode, self.side = render_mode, side
        self.vector = WindowsVectorEnv(1, tensors=True, **settings)
        self.vector._renews = False  # the next image waits for reset
        self._actions = len(self.vector._actions)
        picture = gym.spaces.Box(0, 255, (side, side, 3), np.uint8)
        bits = gym.spaces.MultiBinary(self.vector._memory * self._actions)
        window = gym.spaces.Box(0.0, 1.0, (4,))
        self.observation_space = gym.spaces.Dict(patch=picture, whole=picture, window=window, history=bits)
        self.action_space = gym.spaces.Discrete(self._actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict]:
        """Begin an episode with any image, or that of `options["images"]`."""
        super().reset(seed=seed)
        # all chance comes from np_random, so that an episode can be lived through again
        image = int(self.np_random.integers(len(self.vector.images)))
        self.vector.reset(options=options if options and "images" in options else {"images": [image]})
        self._pixels = self.vector.images.pixels(int(self.vector.image[0]))
        self._whole = self._patch(self._pixels)
        return self._obs(), self._info()

    def step(self, action: Any) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Move the window."""
        _, reward, terminated, truncated, _ = self.vector.step(torch.tensor([int(action)]))
        return self._obs(), float(reward), bool(terminated), bool(truncated), self._info()

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The image `[H, W, 3]` uint8; objects framed in green, in yellow when found; the window in red."""
        if self.render_mode is None:
            return None
        frame = self._pixels.permute(1, 2, 0).cpu().numpy().copy()
        for box, hit in zip(self.vector.objects[int(self.vector.image[0])], self.vector.hit[0], strict=True):
            if area(box) > 0:
                _frame(frame, box, (255, 255, 0) if hit else (0, 255, 0))
        _frame(frame, self.vector.window[0], (255, 0, 0))
        return frame

    def _obs(self) -> Obs:
        x1, y1, x2, y2 = self.vector.window[0].int().tolist()
        size = self.vector.size[int(self.vector.image[0])].float()
        bits = F.one_hot(self.vector.history[0].long(), self._actions + 1)[:, 1:].flatten()
        return {
            "patch": self._patch(self._pixels[:, y1:y2, x1:x2]),
            "whole": self._whole.copy(),
            "window": (self.vector.window[0] / size.repeat(2)).cpu().numpy(),
            "history": bits.to(torch.int8).cpu().numpy(),
        }

    def _info(self) -> dict[str, Any]:
        return {"image": int(self.vector.image[0]), "found": int(self.vector.hit.sum())}

    def _patch(self, pixels: Tensor) -> np.ndarray:
        shape = (self.side, self.side)
        resized = F.interpolate(pixels[None].float(), shape, mode="bilinear", antialias=True)[0]
        return resized.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _frame(picture: np.ndarray, box: Tensor, colour: tuple[int, int, int]) -> None:
    """Draw the border of a box into `[H, W, 3]`."""
    x1, y1, x2, y2 = box.round().int().tolist()
    picture[[y1, y2 - 1], x1:x2] = picture[y1:y2, [x1, x2 - 1]] = colour
