"""One who plays Go: a position, a search with whatever judges it, and the time for a move."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from volition.core.game import Positions
from volition.core.search import Evaluate, Forest, Rollout, Search
from volition.envs import go, go_life
from volition.envs.go_cleanup import cleanup
from volition.envs.go_game import KO, Go
from volition.envs.go_uct import Uct, sensible
from volition.errors import VolitionError

LAG = 0.05  # seconds of a move that are not thought with: what is between the referee's clock and ours
RESERVE = 0.2  # seconds on the clock that are never planned with
LEAST = 20  # moves of its own that a player always expects to come
RESIGN = -0.9  # value of the best move below which a game is given up (−0.8 in the paper)
WORSE = 0.5  # how much less than a pass a move may be worth that is played because the pass would not settle the game
PATIENCE = 4  # passes of the other side that are answered by moves, where dead stones make the difference
SEED = 20160127  # of the games that say which stones are dead
MOST = 200_000  # simulations of UCT a move


class Candidate(NamedTuple):
    """A move that a search looked at; its value and line are for the side to move, in −1 … 1."""

    action: int
    visits: int
    value: float
    prior: float
    line: list[int]
    """The principal variation, the move itself first."""


class Player:
    """Plays one game by the rules; without `evaluate` by UCT with random games. Subtrees are kept between moves.

    `only` is the side of the boards that `evaluate` is for, if it is not for all: on others UCT plays. `games` makes
    rollouts by the rules, which a search with λ > 0 wants.
    """

    def __init__(
        self,
        rules: Go,
        evaluate: Evaluate | None = None,
        games: Callable[[Go], Rollout] | None = None,
        search: Search | None = None,
        seconds: float = 3.0,
        seed: int = 0,
        only: int | None = None,
    ) -> None:
        self.judge, self.games, self.seconds, self.only = evaluate, games, seconds, only
        self.search = search or Search(simulations=1_000_000, nodes=60_000)
        self.random = np.array([2 * seed + 1], np.uint64)
        self.rollout: Rollout | None = None
        # a search and what it is for: kept for its memory
        self._kept: tuple[tuple[object, ...], Forest | Uct] | None = None
        self.clear(rules)

    def clear(self, rules: Go) -> None:
        """An empty board."""
        if self.games and (self.rollout is None or rules != self.rules):
            self.rollout = self.games(rules)
        self.rules = rules
        self.evaluate = self.judge if self.only in (None, rules.size) else None
        self.laid: tuple[Sequence[int], Sequence[int], int] | None = None  # stones set up, and whose turn it was
        self.played: list[tuple[int, int]] = []  # colour and action of each move
        self._begin(rules.start(1))
        self._plant()  # memory is made here and not while a clock runs

    def lay(self, black: Sequence[int], white: Sequence[int] = (), turn: int = go.BLACK) -> None:
        """A board with these stones on it; a VolitionError, and nothing done, if they cannot lie so."""
        positions = self.rules.laid(black, white, turn)
        self.clear(self.rules)
        self.laid = black, white, turn
        self._begin(positions)

    def replay(self, rules: Go, moves: list[tuple[int, int]]) -> None:
        """Begin anew by these rules with the same stones set up, and play moves, of colour and action."""
        laid = self.laid
        self.clear(rules)
        if laid:
            self.lay(*laid)
        for colour, action in moves:
            self.play(colour, action)

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
        self._turn_to(colour)
        row[go.PASSES] = min(row[go.PASSES], 1)  # whoever goes on after two passes does not think them the end
        self.rules.play(self.positions, np.array([action]))
        self.played.append((colour, action))
        if self._forest is not None:
            self._forest.play(np.array([action]))
            if row[go.PASSES]:  # another search if this pass shall not end the game: see `_plant`
                self._forest = None

    def undo(self) -> None:
        """Take the last move back."""
        if not self.played:
            raise VolitionError("cannot undo")
        self.replay(self.rules, self.played[:-1])

    def budget(self, left: float | None, stones: int, spare: float = 0.0) -> float:
        """Seconds for the next move, with `left` on the clock for `stones` moves, or for the rest of the game (0).

        spare are seconds that each move may take besides, of overtime that is still to come.
        """
        if left is None:
            return self.seconds
        expected = self.rules.size**2 * 0.4 - len(self.played) / 2
        share = max(left - RESERVE, 0.0) / (stones or max(LEAST, expected))
        return min(self.seconds, max(0.0, share + spare - LAG))

    def choose(self, colour: int, left: float | None = None, stones: int = 0, spare: float = 0.0) -> int | None:
        """The action to play for a colour, or None to resign; the board stays as it is. The clock is as in `budget`."""
        self._turn_to(colour)
        if self._won():
            self._forget()
            return self.rules.size**2
        self.think(colour, self.budget(left, stones, spare))
        return self.decide()

    def think(self, colour: int, seconds: float = np.inf) -> bool:
        """Search on for a colour; False if there was nothing left to be searched."""
        self._turn_to(colour)
        if self._over():
            self._forget()
            return False
        if self._forest is None:
            self._forest = self._plant()
        before = self._forest.root_visits()[0]
        self._forest.run(seconds=seconds)
        self.visits, self.values = self._forest.visits()[0], self._forest.values()[0]
        return bool(self.visits.sum() > before)

    def decide(self) -> int | None:
        """The action to play by what was thought, or None to resign.

        A pass stands only if the result is the same with dead stones on the board and off it, for the other side may
        want either: else a move is played that is worth about as much, if there is one.
        """
        stop = self.rules.size**2
        if self._over():
            return stop
        if self._forest is None or self.visits.any():
            best = int(self.visits.argmax())
        else:  # there was time for the priors only
            best = int(self._forest.priors()[0].argmax())
        if best == stop and not self.settled():
            best = self._instead()
        self.value = float(self.values[best])
        lost = self.value < RESIGN and self.visits[best] > 50
        passed, sign = self.positions.rows[0, go.PASSES] == 1, 1 if self.turn == go.BLACK else -1
        if passed and (lost or self._ignored()) and sign * self.score() > 0:
            return stop  # what is lost with dead stones off may still be won as the board stands
        return None if lost else best

    def clean(self, colour: int, left: float | None = None, stones: int = 0, spare: float = 0.0) -> int:
        """The action that takes dead stones of the other side off, or a pass if there are none; never resigns."""
        self._turn_to(colour)
        if self._over():
            return self.rules.size**2
        dead, most = self.status() == go_life.DEAD, min(self.search.simulations, MOST)
        return cleanup(self.rules, self._open(), dead, most, self.random, self.budget(left, stones, spare))

    def candidates(self) -> list[Candidate]:
        """Moves that were looked at, the most visited first."""
        if self._forest is None or self._over():
            return []
        priors, forest = self._forest.priors()[0], self._forest
        order = sorted(np.flatnonzero(self.visits), key=lambda a: -self.visits[a])
        return [
            Candidate(
                int(a), int(self.visits[a]), float(self.values[a]), float(priors[a]), forest.line(int(a)).tolist()
            )
            for a in order
        ]

    def priors(self) -> np.ndarray | None:
        """The network's priors `[A]` of the position searched last; None where no network judges."""
        return None if self.evaluate is None or self._forest is None else self._forest.priors()[0]

    def score(self) -> float:
        """Black's points less white's and komi, of the board as it stands."""
        return float(self.rules.score(self.positions)[0])

    def status(self) -> np.ndarray:
        """What `go_life.status` says of each stone, int8 `[N²]`; of one position always the same."""
        return go_life.status(self.rules, self.positions, np.array([SEED], np.uint64))[0]

    def count(self) -> float:
        """Black's points less white's and komi, without the stones that are dead."""
        dead = self.status() == go_life.DEAD
        return float(self.rules.score(go_life.without(self.positions, dead[None]))[0])

    def settled(self) -> bool:
        """Whether the same side has won as the board stands and without the dead stones."""
        return np.sign(self.score()) == np.sign(self.count())

    def _begin(self, positions: Positions) -> None:
        self.positions = positions
        self._forest: Forest | Uct | None = None
        self._forget()

    def _forget(self) -> None:
        """What the last search thought."""
        self.value = np.nan
        self.visits = np.zeros(self.rules.actions, np.int32)
        self.values = np.full(self.rules.actions, np.nan, np.float32)

    def _turn_to(self, colour: int) -> None:
        if colour != self.turn:
            self.positions.rows[0, go.TURN], self.positions.rows[0, go.KO] = colour, go.PASS
            self._forest = None

    def _over(self) -> bool:
        return bool(self.rules.over(self.positions)[0])

    def _won(self) -> bool:
        """Whether the other side has passed and a pass wins, with dead stones on the board as without them."""
        sign = 1 if self.turn == go.BLACK else -1
        return self.positions.rows[0, go.PASSES] == 1 and sign * self.score() > 0 and sign * self.count() > 0

    def _open(self) -> Positions:
        """The position as if nobody had passed."""
        rows = self.positions.rows.copy()
        rows[0, go.PASSES] = 0
        return Positions(rows, self.positions.history)

    def _plant(self) -> Forest | Uct:
        passed = self.positions.rows[0, go.PASSES] == 1
        position = self._open() if passed and not self.settled() else self.positions
        use = self.rules, self.search, self.evaluate, self.rollout
        if self._kept and self._kept[0] == use:
            self._kept[1].restart(position)
        elif self.evaluate is not None:
            self._kept = use, Forest(self.rules, position, self.search, self.evaluate, self.rollout)
        else:
            self._kept = use, Uct(self.rules, position, min(self.search.simulations, MOST), self.random)
        return self._kept[1]

    def _ignored(self) -> bool:
        """Whether the other side's last moves were passes only: it will not be argued out of its count."""
        theirs = [action for colour, action in self.played if colour != self.turn][-PATIENCE:]
        return theirs == [self.rules.size**2] * PATIENCE

    def _instead(self) -> int:
        """The most visited move that fills no own eye and is not much worse than a pass, which is the last resort."""
        stop, row = self.rules.size**2, self.positions.rows[0]
        good = np.empty(self.rules.actions, np.bool_)
        sensible(row, self.positions.history[0, : row[go.MOVES] + 1], KO[self.rules.ko], good)
        good[stop] = False
        good &= self.values >= self.values[stop] - WORSE
        return int(np.where(good, self.visits, 0).argmax()) if (self.visits[good] > 0).any() else stop
