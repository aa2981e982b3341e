"""The rules of Go against slow code that floods groups and remembers boards."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from volition.core.game import Positions
from volition.data.go_games import load
from volition.envs import go
from volition.envs.go_game import KO, Go
from volition.envs.go_replay import replay
from volition.envs.go_uct import RandomGames, Uct, sensible, uct
from volition.errors import VolitionError

B, W = go.BLACK, go.WHITE


class Slow:
    """A game as its rules are told: a dict of stones, groups found by flooding, all boards kept."""

    def __init__(self, n: int, rule: str) -> None:
        self.n, self.rule, self.stones, self.turn = n, rule, {}, B
        self.ko, self.passes = None, 0
        self.boards = [self.key({}, B)]

    def key(self, stones: dict, turn: int) -> object:
        board = frozenset(stones.items())
        return (board, turn) if self.rule == "situational" else board

    def around(self, p: tuple) -> list:
        near = [(p[0] + 1, p[1]), (p[0] - 1, p[1]), (p[0], p[1] + 1), (p[0], p[1] - 1)]
        return [q for q in near if 0 <= q[0] < self.n and 0 <= q[1] < self.n]

    def group(self, stones: dict, p: tuple) -> tuple[set, set]:
        group, liberties, todo = {p}, set(), [p]
        while todo:
            for q in self.around(todo.pop()):
                if q not in stones:
                    liberties.add(q)
                elif stones[q] == stones[p] and q not in group:
                    group.add(q)
                    todo.append(q)
        return group, liberties

    def after(self, p: tuple) -> tuple[dict, int] | None:
        """Stones after the move and how many it took; None if it is suicide or the point is taken."""
        if p in self.stones:
            return None
        stones, taken = self.stones | {p: self.turn}, 0
        for q in self.around(p):
            if stones.get(q) == 3 - self.turn and not self.group(stones, q)[1]:
                for r in self.group(stones, q)[0]:
                    del stones[r]
                    taken += 1
        return (stones, taken) if self.group(stones, p)[1] else None

    def legal(self, p: tuple | None) -> bool:
        if p is None:
            return True
        found = self.after(p)
        if found is None or p == self.ko:
            return False
        return self.rule == "simple" or self.key(found[0], 3 - self.turn) not in self.boards

    def play(self, p: tuple | None) -> None:
        old, self.ko = self.stones, None
        if p is not None:
            self.stones, taken = self.after(p)
            group, liberties = self.group(self.stones, p)
            if taken == 1 and len(group) == 1 and len(liberties) == 1:
                self.ko = next(q for q in old if q not in self.stones)
        self.turn = 3 - self.turn
        self.passes = 0 if p is not None else self.passes + 1
        self.boards.append(self.key(self.stones, self.turn))

    def area(self) -> int:
        score, seen = sum(3 - 2 * c for c in self.stones.values()), set()
        for p in ((r, c) for r in range(self.n) for c in range(self.n)):
            if p in self.stones or p in seen:
                continue
            region, todo, touched = {p}, [p], set()
            while todo:
                for q in self.around(todo.pop()):
                    if q in self.stones:
                        touched.add(self.stones[q])
                    elif q not in region:
                        region.add(q)
                        todo.append(q)
            seen |= region
            if len(touched) == 1:
                score += (3 - 2 * touched.pop()) * len(region)
        return score

    def actions(self) -> list[int]:
        return [a for a in range(self.n**2 + 1) if self.legal(self.point(a))]

    def point(self, action: int) -> tuple | None:
        return None if action == self.n**2 else divmod(action, self.n)


def at(n: int, r: int, c: int) -> int:
    return int((r + 1) * (n + 1) + c + 1)


def check(slow: Slow, rules: Go, positions: Positions) -> None:
    """Every number of the row is what the stones say."""
    n, row = slow.n, positions.rows[0]
    free = set()
    for r in range(n):
        for c in range(n):
            p = at(n, r, c)
            assert row[go.at(p, go.COLOUR)] == slow.stones.get((r, c), go.EMPTY)
            if (r, c) not in slow.stones:
                free.add(p)
                continue
            group, liberties = slow.group(slow.stones, (r, c))
            h = row[go.at(p, go.CHAIN)]
            assert h in {at(n, *q) for q in group}
            circle, q = set(), p
            while q not in circle:
                circle.add(q)
                assert row[go.at(q, go.CHAIN)] == h
                q = int(row[go.at(q, go.NEXT)])
            assert circle == {at(n, *q) for q in group}
            pairs = [at(n, *e) for s in group for e in slow.around(s) if e not in slow.stones]
            kept = [row[go.at(h, field)] for field in (go.STONES, go.LIBS, go.SUM, go.SQUARES)]
            assert kept == [len(group), len(pairs), sum(pairs), sum(e * e for e in pairs)]
            assert go.in_atari(row, h) == (len(liberties) == 1)
            assert go.liberties(row, p, 99) == len(liberties) and go.liberties(row, p, 1) == 1
    assert {int(row[go.free_at(row, i)]) for i in range(row[go.EMPTIES])} == free and row[go.EMPTIES] == len(free)
    assert all(row[go.free_at(row, row[go.place_at(row, p)])] == p for p in free)
    assert row[go.KO] == (go.PASS if slow.ko is None else at(n, *slow.ko))
    low = high = 0
    for (r, c), colour in slow.stones.items():
        low ^= int(go.ZOBRIST[0, colour - 1, at(n, r, c)])
        high ^= int(go.ZOBRIST[1, colour - 1, at(n, r, c)])
    assert (low, high) == (row[go.LOW], row[go.HIGH])
    assert row[go.TURN] == slow.turn and row[go.PASSES] == slow.passes
    assert np.flatnonzero(rules.legal(positions)[0]).tolist() == slow.actions()
    assert rules.score(positions)[0] + rules.komi == slow.area()


@pytest.mark.parametrize("rule", KO)
@pytest.mark.parametrize(("n", "games"), [(2, 30), (3, 20), (4, 10), (5, 6), (9, 1)])
def test_random_games_are_what_slow_code_says(n: int, games: int, rule: str) -> None:
    rng = np.random.default_rng(n)
    rules = Go(n, 0.5, rule, limit=200)
    for _ in range(games):
        slow, positions = Slow(n, rule), rules.start(1)
        for _ in range(min(60, 8 * n * n)):
            check(slow, rules, positions)
            if slow.passes == 2:
                break
            actions = slow.actions()
            action = int(rng.choice(actions[:-1] if len(actions) > 1 and rng.random() < 0.95 else actions))
            slow.play(slow.point(action))
            rules.play(positions, np.array([action]))


def perft(rules: Go, positions: Positions, depth: int) -> int:
    actions = np.flatnonzero(rules.legal(positions)[0])
    if rules.over(positions)[0]:
        return 0
    if depth == 1:
        return len(actions)
    count = len(actions)
    after = rules.follow(positions, np.zeros(count, np.int64), actions[:, None], np.ones(count, np.int64))
    return sum(perft(rules, after.take(slice(i, i + 1)), depth - 1) for i in range(count))


def slow_perft(slow: Slow, depth: int) -> int:
    if slow.passes == 2:
        return 0
    actions = slow.actions()
    if depth == 1:
        return len(actions)
    total = 0
    for action in actions:
        kept = slow.stones, slow.turn, slow.ko, slow.passes, list(slow.boards)
        slow.play(slow.point(action))
        total += slow_perft(slow, depth - 1)
        slow.stones, slow.turn, slow.ko, slow.passes, slow.boards = kept
    return total


@pytest.mark.parametrize("rule", KO)
@pytest.mark.parametrize(("n", "depth"), [(2, 6), (3, 4)])
def test_perft(n: int, depth: int, rule: str) -> None:
    rules = Go(n, 0.5, rule)
    assert perft(rules, rules.start(1), depth) == slow_perft(Slow(n, rule), depth)


def board(text: str, turn: int = B, rules: Go | None = None) -> tuple[Go, Positions]:
    """A position from X (black), O (white) and dots, put there stone by stone."""
    lines = text.split()
    rules = rules or Go(len(lines), 0.5)
    positions = rules.start(1)
    row = positions.rows[0]
    for r, line in enumerate(lines):
        for c, mark in enumerate(line):
            if mark != ".":
                row[go.TURN] = B if mark == "X" else W
                go.play(row, at(len(lines), r, c))
    row[go.TURN], row[go.KO], row[go.MOVES] = turn, go.PASS, 0
    positions.history[0, 0] = go.board_key(row, KO[rules.ko])
    return rules, positions


def legal(rules: Go, positions: Positions, r: int, c: int) -> bool:
    return bool(rules.legal(positions)[0, r * rules.size + c])


def put(rules: Go, positions: Positions, *moves: tuple[int, int]) -> None:
    for r, c in moves:
        assert legal(rules, positions, r, c)
        rules.play(positions, np.array([r * rules.size + c]))


def test_ko() -> None:
    rules, positions = board(".XO.. XO.O. .XO.. ..... .....", B)
    put(rules, positions, (1, 2))  # takes (1, 1)
    assert positions.rows[0, go.TAKEN] == 1
    assert not legal(rules, positions, 1, 1)
    put(rules, positions, (4, 4), (4, 0))
    assert legal(rules, positions, 1, 1)  # after a move elsewhere the whole board differs


def test_suicide_is_forbidden_and_taking_is_none() -> None:
    rules, positions = board(".X... X.... ..... ..... .....", W)
    assert not legal(rules, positions, 0, 0)
    rules, positions = board(".OX.. OX... X.... ..... .....", W)
    assert not legal(rules, positions, 0, 0)  # of a group
    rules, positions = board(".OX.. OX... X.... ..... .....", B)
    put(rules, positions, (0, 0))
    assert positions.rows[0, go.TAKEN] == 2


def test_boards_come_back_under_simple_ko_only() -> None:
    found = {}
    for rule in KO:
        rules = Go(2, 0.5, rule)
        repeated = 0
        stack = [(rules.start(1), 0)]
        while stack:
            positions, depth = stack.pop()
            path = positions.history[0, : positions.rows[0, go.MOVES] + 1]
            repeated += len(set(path.tolist())) < len(path)
            if depth == 7:
                continue
            actions = np.flatnonzero(rules.legal(positions)[0][:-1])
            for a in actions:
                after = rules.follow(positions, np.zeros(1, np.int64), np.array([[a]]), np.ones(1, np.int64))
                stack.append((after, depth + 1))
        found[rule] = repeated
    assert found["simple"] > 0 and found["positional"] == 0


def test_eyes() -> None:
    def eye(text: str, r: int, c: int) -> bool:
        _, positions = board(text)
        return go.own_eye(positions.rows[0], at(5, r, c), B)

    assert eye(".X... XX... ..... ..... .....", 0, 0)
    assert not eye(".X... XO... ..... ..... .....", 0, 0)  # in the corner the one diagonal counts
    assert eye("..X.. .X.X. ..X.. ..... .....", 1, 2)
    assert eye(".OX.. .X.X. ..X.. ..... .....", 1, 2)
    assert not eye(".OXO. .X.X. ..X.. ..... .....", 1, 2)
    assert not eye("X.X.. OXX.. ..... ..... .....", 0, 1) and eye("X.X.. XXX.. ..... ..... .....", 0, 1)
    assert not eye("..X.. .X... ..X.. ..... .....", 1, 2)


def test_seki_and_dame_count_for_nobody() -> None:
    _, positions = board("XX.OO XXOO. .X.OO XX.OO XX.OO")
    owner = np.empty(go.points(5), np.int8)
    score = go.area(positions.rows[0], owner)
    assert owner[at(5, 0, 2)] == go.EMPTY and owner[at(5, 2, 0)] == B and owner[at(5, 1, 4)] == W
    assert score == (owner == B).sum() - (owner == W).sum()


def test_the_end_komi_and_draws() -> None:
    rules = Go(3, komi=0.0)
    positions = rules.start(2)
    assert np.isnan(rules.outcome(positions)).all()
    rules.play(positions, np.array([9, 4]))
    rules.play(positions, np.array([9, 9]))
    assert rules.over(positions).tolist() == [True, False]
    rules.play(positions, np.array([0, 9]))  # the first is over and stays
    assert rules.outcome(positions).tolist() == [0.0, -1.0]  # white is to move where black has won
    assert positions.rows[0, go.MOVES] == 2
    short = Go(3, 0.5, limit=1)
    one = short.start(1)
    short.play(one, np.array([4]))
    assert short.outcome(one).tolist() == [-1.0] and Go(3, 9.5).outcome(positions)[1] == 1.0


def test_random_moves_are_uniform_and_fill_no_eyes() -> None:
    _, positions = board(".X... XX.O. .O... ..... .....")
    random, counts = np.array([12345], np.uint64), np.zeros(go.points(5))
    row = positions.rows[0]
    for _ in range(20_000):
        p = go.random_move(row, random)
        counts[p] += 1
    good = [p for p in range(1, len(counts)) if row[go.at(p, go.COLOUR)] == go.EMPTY and go.legal(row, p)]
    good = [p for p in good if not go.own_eye(row, p, B)]
    assert counts[at(5, 0, 0)] == 0 and counts[good].sum() == 20_000
    expected = 20_000 / len(good)
    assert ((counts[good] - expected) ** 2 / expected).sum() < 60  # 18 moves: χ² of 17 is above 41 once in a thousand


def test_follow_is_to_play_from_the_beginning() -> None:
    rules, rng = Go(4, 0.5), np.random.default_rng(0)
    start = rules.start(2)
    rules.play(start, np.array([0, 5]))
    path, one = [], start.take(np.array([1]))
    for _ in range(20):
        path.append(rng.choice(np.flatnonzero(rules.legal(one)[0])))
        rules.play(one, np.array(path[-1:]))
    found = rules.follow(start, np.array([1]), np.array([path]), np.array([20]))
    assert np.array_equal(found.rows, one.rows)
    count = one.rows[0, go.MOVES] + 1
    assert np.array_equal(found.history[:, :count], one.history[:, :count])


def test_random_games_end_and_judge_for_the_side_to_move() -> None:
    rules, positions = board("XXXXX X.X.X XXXXX ..... .....", W)
    assert RandomGames(rules, 1)(positions).tolist() == [-1.0]  # black lives and has most of the board for sure
    positions.rows[0, go.TURN] = B
    assert RandomGames(rules, 1)(positions).tolist() == [1.0]
    several = Go(5, 0.5)
    results = RandomGames(several, 3)(several.start(400))
    assert set(results.tolist()) == {-1.0, 1.0} and 0.3 < (results == 1).mean() < 0.9


def test_uct_finds_what_takes_and_passes_when_that_wins() -> None:
    rules, positions = board(".XO.. XO... .XO.. ..... .....", B)
    put(rules, positions, (1, 2))
    random = np.array([1], np.uint64)
    visits, values = uct(rules, rules.start(1), 300, random)
    assert visits.sum() == 300 and visits[25] == 0 and np.isnan(values[25])
    won, positions = board("XXXXX X.X.X XXXXX ..... .....", B)
    positions.rows[0, go.PASSES] = 1  # white has passed
    visits, values = uct(won, positions, 200, random)
    assert values[25] == 1.0
    mask = np.empty(26, np.bool_)
    sensible(positions.rows[0], positions.history[0, :1], go.POSITIONAL, mask)
    assert not mask[6] and mask[25] and mask[15]


def test_uct_goes_on_and_keeps_what_it_knows() -> None:
    rules, random = Go(5, 0.5), np.array([1], np.uint64)
    tree = Uct(rules, rules.start(1), 600, random)
    tree.run(200)
    assert tree.root_visits()[0] == 200
    tree.run()
    visits, best = tree.visits()[0], int(tree.visits()[0].argmax())
    assert visits.sum() == 600 and np.isfinite(tree.values()[0, best])
    assert tree.priors()[0].sum() == pytest.approx(1.0) and tree.priors()[0, 25] == 0
    line = tree.line(best)
    tree.play(line[:1])
    assert 0 < tree.root_visits()[0] < visits[best] and tree.visits()[0].argmax() == line[1]
    tree.run()
    assert tree.root_visits()[0] == 600 and tree.visits()[0, best] == 0
    tree.restart(rules.start(1))
    assert tree.root_visits()[0] == 0 and tree.line(best).tolist() == []
    tree.run(50)
    assert tree.root_visits()[0] == 50
    ended = rules.start(1)
    for _ in range(2):
        rules.play(ended, np.array([25]))
    tree.restart(ended)
    tree.run(seconds=1e9)  # comes back, though nothing can be searched
    assert tree.root_visits()[0] == 0


def test_stones_set_up_are_as_if_played_but_for_the_numbers_of_moves() -> None:
    rules = Go(5, 0.5)
    laid = rules.laid([0, 6, 12], [1, 7], W)
    check_slow = Slow(5, "positional")
    check_slow.stones = {divmod(a, 5): B for a in (0, 6, 12)} | {divmod(a, 5): W for a in (1, 7)}
    check_slow.turn, check_slow.boards = W, [check_slow.key(check_slow.stones, W)]
    check(check_slow, rules, laid)
    row = laid.rows[0]
    assert [row[i] for i in (go.MOVES, go.LAST, go.BEFORE, go.TAKEN)] == [0, 0, 0, 0]
    assert all(row[go.at(at(5, *p), go.AGE)] == 0 for p in check_slow.stones)
    # boards that lay there may not come back: black takes a ko, and white's answer would make the first one again
    rules = Go(5, 0.5)
    ko = rules.laid([1, 5, 11], [2, 6, 8, 12], B)
    put(rules, ko, (1, 2))
    assert ko.rows[0, go.TAKEN] == 1 and not legal(rules, ko, 1, 1)
    for black, white in (([0, 0], []), ([0], [0]), ([25], []), ([1, 5], [0]), ([0, 2, 6], [1])):
        with pytest.raises(VolitionError, match="liberty"):
            rules.laid(black, white)


def test_bad_rules() -> None:
    for wrong in ({"size": 1}, {"size": 26}, {"ko": "none"}, {"limit": -1}):
        with pytest.raises(VolitionError):
            Go(**wrong)


def test_recorded_games_on_the_board(tmp_path: Path) -> None:
    rules = Go(5, 0.5, "simple")
    text = "(;GM[1]SZ[5]RE[B+1]KM[0.5];B[aa];W[ba];B[cc];W[ab])\n(;GM[1]SZ[5]RE[W+R];B[aa];W[ba];B[ab];W[aa];B[cc])\n"
    path = tmp_path / "two.sgfs"
    path.write_text(text)
    games = load(path, 5)
    moves = replay(games, rules)
    assert moves.broken == 1  # the second puts a stone on a stone
    assert np.bincount(moves.game).tolist() == [4, 3]
    positions, actions = moves.positions(np.arange(7))
    assert actions.tolist() == [0, 1, 12, 5, 0, 1, 5]
    assert positions.rows[3, go.MOVES] == 3 and rules.legal(positions)[np.arange(7), actions].all()
    assert moves.outcome(np.arange(7)).tolist() == [1, -1, 1, -1, -1, 1, -1]
