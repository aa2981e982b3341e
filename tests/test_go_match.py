"""Matches: who cannot lose, who is stronger, and that both get what is theirs."""

import numpy as np

from volition.applications._go_match import Imitator, Uct, opening, pairs
from volition.core.match import Searcher, match
from volition.core.search import Search, even
from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_selfplay import any_move
from volition.envs.go_uct import RandomGames

RULES = Go(5, komi=0.5)
TEN = pairs(RULES, 10)
ANY = Imitator(any_move, temperature=1.0)


def test_search_beats_random_moves_with_either_colour() -> None:
    search = Searcher(Search(simulations=40, lam=1.0), even(RULES.actions), RandomGames)
    assert match(RULES, search, ANY, TEN) >= 9
    assert match(RULES, ANY, search, TEN) <= 1
    assert match(RULES, Uct(200), ANY, TEN) >= 9


def test_points_add_up_and_pairs_share_their_opening() -> None:
    firsts = []

    class Watcher(Imitator):
        def choose(self, positions, mine):
            if not firsts:
                firsts.append(positions.rows[:, [go.LOW, go.HIGH]].copy())
            assert (positions.rows[mine, go.TURN] == np.where(np.arange(len(mine))[mine] % 2 == 0, 1, 2)).all()
            return super().choose(positions, mine)

    won = match(RULES, Watcher(any_move, 1.0, seed=3), ANY, pairs(RULES, 8, seed=5))
    assert 0 <= won <= 8
    (keys,) = firsts
    assert (keys[0::2] == keys[1::2]).all() and len(np.unique(keys[::2], axis=0)) == 4


def test_openings_lie_apart() -> None:
    for seed in range(20):
        places = [divmod(a, 9) for a in opening(Go(9), seed)]
        assert len(places) == 4 and all(0 < x < 8 for place in places for x in place)
        assert all(abs(r - s) + abs(c - d) > 1 for i, (r, c) in enumerate(places) for s, d in places[:i])
