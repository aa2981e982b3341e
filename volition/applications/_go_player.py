"""One who plays Go: a position, a search with whatever judges it, and a clock."""

import numpy as np

from volition.core.game import Positions
from volition.core.search import Evaluate, Forest, Rollout, Search
from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_uct import uct
from volition.errors import VolitionError

LAG = 0.05  # seconds of a move that are not thought with: what is between the referee's clock and ours
LEAST = 12  # moves of its own that a player always expects to come
RESIGN = -0.9  # value of the best move below which a game is given up (−0.8 in the paper)


class Player:
    """Plays one game by the rules; without `evaluate` by UCT with random games. Subtrees are kept between moves."""

    def __init__(
        self,
        rules: Go,
        evaluate: Evaluate | None = None,
        rollout: Rollout | None = None,
        search: Search | None = None,
        seconds: float = 3.0,
        seed: int = 0,
    ) -> None:
        self.evaluate, self.rollout, self.seconds = evaluate, rollout, seconds
        self.search = search or Search(simulations=1_000_000, nodes=60_000)
        self.random = np.array([2 * seed + 1], np.uint64)
        self.clear(rules)

    def clear(self, rules: Go) -> None:
        """An empty board."""
        self.rules = rules
        self.played: list[tuple[int, int]] = []  # colour and action of each move
        self.positions: Positions = rules.start(1)
        self.value = np.nan
        self.visits = np.zeros(rules.actions, np.int32)
        self.values = np.full(rules.actions, np.nan, np.float32)
        self._forest: Forest | None = None

    @property
    def turn(self) -> int:
        """`BLACK` or `WHITE`."""
        return int(self.positions.rows[0, go.TURN])

    def legal(self, colour: int) -> np.ndarray:
        """Legal actions `[A]` of a colour, also out of turn."""
        mine = Positions(self.positions.rows.copy(), self.positions.history)
        if colour != self.turn:
            mine.rows[0, go.TURN], mine.rows[0, go.KO] = colour, go.PASS
        return self.rules.legal(mine)[0]

    def play(self, colour: int, action: int) -> None:
        """Play for a colour; a VolitionError if it is not legal or the game has its most moves."""
        if not self.legal(colour)[action]:
            raise VolitionError("illegal move")
        row = self.positions.rows[0]
        if row[go.MOVES] >= self.rules.moves:
            raise VolitionError(f"a game has at most {self.rules.moves} moves")
        if colour != self.turn:
            row[go.TURN], row[go.KO], self._forest = colour, go.PASS, None
        row[go.PASSES] = min(row[go.PASSES], 1)  # whoever goes on after two passes does not think them the end
        self.rules.play(self.positions, np.array([action]))
        self.played.append((colour, action))
        if self._forest is not None:
            self._forest.play(np.array([action]))

    def undo(self) -> None:
        """Take the last move back."""
        if not self.played:
            raise VolitionError("cannot undo")
        moves = self.played[:-1]
        self.clear(self.rules)
        for colour, action in moves:
            self.play(colour, action)

    def budget(self, left: float | None, stones: int) -> float:
        """Seconds for the next move, with `left` on the clock for `stones` moves, or for the rest of the game (0)."""
        if left is None:
            return self.seconds
        expected = self.rules.size**2 * 0.4 - len(self.played) / 2
        return min(self.seconds, max(0.0, left / (stones or max(LEAST, expected)) - LAG))

    def choose(self, colour: int, left: float | None = None, stones: int = 0) -> int | None:
        """The action to play for a colour, or None to resign; the board stays as it is."""
        if colour != self.turn:
            self.positions.rows[0, go.TURN], self.positions.rows[0, go.KO] = colour, go.PASS
            self._forest = None
        position, seconds = self.positions, self.budget(left, stones)
        if position.rows[0, go.PASSES] >= 2 or position.rows[0, go.MOVES] >= self.rules.moves:
            return self.rules.size**2
        if self.evaluate is None:
            most = min(self.search.simulations, 200_000)
            self.visits, self.values = uct(self.rules, position, most, self.random, seconds=seconds)
        else:
            if self._forest is None:
                self._forest = Forest(self.rules, position, self.search, self.evaluate, self.rollout)
            self._forest.run(seconds=seconds)
            self.visits, self.values = self._forest.visits()[0], self._forest.values()[0]
        best = int(self.visits.argmax())
        self.value = float(self.values[best])
        return None if self.value < RESIGN and self.visits[best] > 50 else best

    def priors(self) -> np.ndarray | None:
        """The network's priors `[A]` of the position searched last; None where no network judges."""
        return None if self.evaluate is None or self._forest is None else self._forest.priors()[0]

    def score(self) -> float:
        """Black's points less white's and komi, of the board as it stands."""
        return float(self.rules.score(self.positions)[0])
