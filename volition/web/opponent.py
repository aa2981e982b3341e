"""The player behind the board: it answers one request at a time and keeps the tree of the game that it saw last."""

import threading
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from volition.applications._go_player import Player
from volition.envs import go
from volition.web.game import Game, state
from volition.web.guard import Refused

WAITING = 4  # requests that may wait for the player, the one it answers included
LONGEST = 30.0  # most seconds of a search


class Opponent:
    """Searches in games on boards of `sizes`, for `seconds` where nothing else is asked for."""

    def __init__(self, player: Player, sizes: set[int], seconds: float, name: str) -> None:
        self.player, self.sizes, self.seconds, self.name = player, sizes, seconds, name
        self.waiting = 0  # counted in the event loop alone
        self._lock = threading.Lock()

    async def ask(self, game: Game, body: dict[str, Any], hint: bool) -> dict[str, Any]:
        """A search of the game's position, in another thread, and its move, which is played unless it is a hint."""
        seconds = body.get("seconds", self.seconds)
        if type(seconds) not in (int, float) or not 0 < seconds <= LONGEST:
            raise Refused(422, f"seconds must be more than 0 and at most {LONGEST:g}")
        if game.over:
            raise Refused(409, "the game is over")
        if self.waiting >= WAITING:
            raise Refused(503, "the opponent is busy with other games; try again in a few seconds")
        self.waiting += 1
        try:
            return await run_in_threadpool(self.search, game, seconds, hint)
        finally:
            self.waiting -= 1

    def search(self, game: Game, seconds: float, hint: bool) -> dict[str, Any]:
        """As `ask`, in this thread: `visits`, `values` (Q) and `priors` of the actions, for the side to move."""
        with self._lock:
            player = self.player
            try:
                self._follow(game)
                player.seconds = seconds
                action = player.choose(player.turn)
                visits, value = player.visits, player.value
                if action is None and hint:
                    action = int(visits.argmax())
                priors = player.priors()
                found: dict[str, Any] = {
                    "action": action,
                    "win": None if np.isnan(value) else round((value + 1) / 2, 4),
                    "visits": visits.tolist(),
                    "values": [None if np.isnan(q) else round(float(q), 3) for q in player.values],
                    "priors": None if priors is None else np.round(priors.astype(float), 4).tolist(),
                }
                if action is not None and not hint:
                    game.add(action)
                    player.play(player.turn, action)
            except BaseException:
                player.clear(player.rules)  # whatever happened, the next request begins with a sound player
                raise
        return found if hint else found | {"state": state(game)}

    def warm(self) -> None:
        """Have everything compiled before somebody waits: numba does so at first use, and keeps it on disk."""
        rules = self.player.rules
        for moves in ([], [0], [0, rules.size**2]):
            game = Game(rules, [], rules.start(1))
            for action in moves:
                game.add(action)
            self.search(game, 0.01, hint=False)

    def _follow(self, game: Game) -> None:
        """Bring the player to the game: on from where it is if that lies on the way, else from the beginning."""
        player, played = self.player, [action for _, action in self.player.played]
        if player.rules != game.rules or game.moves[: len(played)] != played:
            player.clear(game.rules)
            played = []
        for action in game.moves[len(played) :]:
            player.play(player.turn, action)
        assert player.turn == game.row[go.TURN]
