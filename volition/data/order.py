"""Which rows come next: every one once, in an order drawn anew for each pass; it goes on where it was saved."""

from typing import Any

import torch
from torch import Generator


class Order:
    """Draws from `count` rows without repeating one before all have come."""

    def __init__(self, count: int, generator: Generator) -> None:
        if count < 1:
            raise ValueError("there is nothing to draw from")
        self.count, self.generator = count, generator
        self.left = torch.empty(0, dtype=torch.long)

    def take(self, number: int) -> list[int]:
        """The next `number` rows."""
        while len(self.left) < number:
            more = torch.randperm(self.count, generator=self.generator, device=self.generator.device)
            self.left = torch.cat([self.left, more.cpu()])
        taken, self.left = self.left[:number], self.left[number:]
        return taken.tolist()

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["left"]) and int(state["left"].max()) >= self.count:
            raise ValueError(f"an order of more than the {self.count} rows there are")
        self.left = state["left"].clone()
