"""The input planes of Go networks against slow code of their definitions, and ladders against brute force."""

import numpy as np
import pytest

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go_planes import INVERSE, planes, small_planes, symmetries, turn
from volition.errors import VolitionError


class Board:
    """A slow board: colours by (r, c), 1 black, 2 white; `play` gives a new one or None where it is illegal."""

    def __init__(self, n, stones=(), turn=1, ko=None):
        self.n, self.stones, self.turn, self.ko = n, dict(stones), turn, ko

    def near(self, p):
        r, c = p
        found = ((r - 1, c), (r, c - 1), (r, c + 1), (r + 1, c))
        return [q for q in found if 0 <= q[0] < self.n and 0 <= q[1] < self.n]

    def chain(self, p):
        stones, todo = {p}, [p]
        while todo:
            for q in self.near(todo.pop()):
                if self.stones.get(q) == self.stones[p] and q not in stones:
                    stones.add(q)
                    todo.append(q)
        return stones, {q for s in stones for q in self.near(s) if q not in self.stones}

    def play(self, p):
        if p in self.stones or p == self.ko:
            return None
        new = Board(self.n, self.stones, 3 - self.turn)
        new.stones[p] = self.turn
        taken = set()
        for q in self.near(p):
            if new.stones.get(q) == new.turn and not new.chain(q)[1]:
                dead = new.chain(q)[0]
                taken |= dead
                for s in dead:
                    del new.stones[s]
        stones, free = new.chain(p)
        if not free:
            return None
        if len(taken) == 1 and len(stones) == 1 and len(free) == 1:
            new.ko = next(iter(taken))
        new.taken = len(taken)
        return new

    def points(self):
        return [(r, c) for r in range(self.n) for c in range(self.n)]

    def eye(self, p):
        if any(self.stones.get(q) != self.turn for q in self.near(p)):
            return False
        r, c = p
        corners = [(r - 1, c - 1), (r - 1, c + 1), (r + 1, c - 1), (r + 1, c + 1)]
        inside = [q for q in corners if 0 <= q[0] < self.n and 0 <= q[1] < self.n]
        foes = sum(self.stones.get(q) == 3 - self.turn for q in inside)
        return foes + (len(inside) < 4) < 2


def escapes(board, s):
    """Whether the side of stone s, to move with its chain in atari, saves it by any move at all."""
    for p in board.points():
        new = board.play(p)
        if new is not None and away(new, s):
            return True
    return False


def away(board, s):
    """Whether the chain of s is safe from ataris after its side has moved."""
    free = board.chain(s)[1]
    if len(free) != 2:
        return len(free) > 2
    for p in free:
        new = board.play(p)
        if new is not None and not escapes(new, s):
            return False
    return True


def naive(board, ages, ladders):
    """48 planes `[48, N, N]`; ages: turns since, by point."""
    x = np.zeros((49, board.n, board.n), np.uint8)
    me = board.turn
    x[3], x[48] = 1, me == 1

    def put(first, number, p):
        if number:
            x[first - 1 + min(number, 8)][p] = 1

    for p in board.points():
        if p in board.stones:
            x[int(board.stones[p] != me)][p] = 1
            put(4, ages[p], p)
            put(12, len(board.chain(p)[1]), p)
            continue
        x[2][p] = 1
        new = board.play(p)
        if new is None:
            continue
        stones, free = new.chain(p)
        put(20, new.taken, p)
        put(28, len(stones) if len(free) == 1 else 0, p)
        put(36, len(free), p)
        x[46][p] = not board.eye(p)
        for s in board.stones if ladders else ():
            free = board.chain(s)[1]
            if board.stones[s] != me and len(free) == 2 and p in free and not escapes(new, s):
                x[44][p] = 1
            if board.stones[s] == me and len(free) == 1 and away(new, s):
                x[45][p] = 1
    return x


def naive_small(board, ages, moves):
    x = np.zeros((18, board.n, board.n), np.uint8)
    x[15], x[16] = 1, board.turn == 1
    for p in board.stones:
        foe = board.stones[p] != board.turn
        x[int(foe)][p] = 1
        x[1 + 4 * foe + min(len(board.chain(p)[1]), 4)][p] = 1
        if ages[p] in (3, 4):
            x[9 + ages[p]][p] = 1
    for i, p in enumerate(moves[:-3:-1]):
        if p is not None:
            x[10 + i][p] = 1
    if board.ko:
        x[14][board.ko] = 1
    x[17] = bool(moves) and moves[-1] is None
    return x


def games(n, seed, count, every=1, passes=0.02):
    """Positions of random games with their slow boards, ages and moves."""
    rng = np.random.default_rng(seed)
    rows, slow = [], []
    for _ in range(count):
        row = np.empty(go.row_length(n), np.int32)
        go.clear(row, n)
        board, played, moves = Board(n), {}, []
        for t in range(int(1.5 * n * n)):
            free = [p for p in board.points() if p not in board.stones and not board.eye(p) and board.play(p)]
            if not free:
                break
            if rng.random() < passes:
                p, board = None, Board(n, board.stones, 3 - board.turn)
            else:
                p = free[rng.integers(len(free))]
                board = board.play(p)
                played[p] = t
            go.play(row, go.PASS if p is None else go.to_point(n, p[0] * n + p[1]))
            moves.append(p)
            if t % every == every - 1:
                rows.append(row.copy())
                slow.append((board, {q: t - played[q] + 1 for q in board.stones}, list(moves)))
    return Positions(np.array(rows), np.zeros((len(rows), 1), np.int64)), slow


@pytest.mark.parametrize(("n", "count", "every"), [(2, 4, 1), (5, 6, 1), (9, 3, 2), (19, 1, 30)])
def test_planes_are_as_defined(n, count, every):
    positions, slow = games(n, n, count, every)
    whole, small = planes(positions, 49), small_planes(positions)
    for k, (board, ages, moves) in enumerate(slow):
        expected = naive(board, ages, ladders=n <= 9 or k < 2)
        for c in range(49):
            if c not in (44, 45) or n <= 9 or k < 2:
                np.testing.assert_array_equal(whole[k, c], expected[c], f"plane {c} of position {k}")
        np.testing.assert_array_equal(small[k], naive_small(board, ages, moves))
    if n >= 9:  # all kinds of planes were seen, the empty ones apart
        assert whole[:, [*range(44), 46]].any((0, 2, 3)).mean() > 0.8
    np.testing.assert_array_equal(planes(positions), whole[:, :48])
    without = planes(positions, ladders=False)
    assert not without[:, 44:46].any()
    np.testing.assert_array_equal(without[:, 46], whole[:, 46])


def diagram(text, turn):
    """A position from lines of . X (black) and O (white)."""
    lines = text.split()
    n = len(lines)
    row = np.empty(go.row_length(n), np.int32)
    go.clear(row, n)
    for colour, letter in ((go.BLACK, "X"), (go.WHITE, "O")):
        for r in range(n):
            for c in range(n):
                if lines[r][c] == letter:
                    row[go.TURN] = colour
                    go.play(row, go.to_point(n, r * n + c))
    row[go.TURN] = turn
    row[go.KO] = go.PASS
    return Positions(row[None], np.zeros((1, 1), np.int64))


def marked(text, turn, plane):
    return {tuple(map(int, p)) for p in np.argwhere(planes(diagram(text, turn))[0, plane])}


RUNNING = """
.........
..X......
.XOX.....
.........
.........
.........
.........
.........
........."""


def with_stone(text, r, c, letter):
    lines = [list(line) for line in text.split()]
    lines[r][c] = letter
    return "\n".join("".join(line) for line in lines)


def test_a_ladder_across_the_board():
    open_ladder = with_stone(with_stone(RUNNING, 3, 1, "X"), 2, 3, ".")  # liberties of O (2, 2): (2, 3) and (3, 2)
    assert marked(open_ladder, go.BLACK, 44) == {(2, 3)} | marked(open_ladder, go.BLACK, 44)
    assert (2, 3) in marked(open_ladder, go.BLACK, 44)
    breaker = with_stone(open_ladder, 6, 6, "O")
    assert not {(2, 3)} & marked(breaker, go.BLACK, 44) or (2, 3) not in marked(breaker, go.BLACK, 44)
    caught = with_stone(open_ladder, 2, 3, "X")
    assert marked(caught, go.WHITE, 45) == set()
    assert marked(with_stone(caught, 6, 6, "O"), go.WHITE, 45) == {(3, 2)}


def test_a_ladder_of_nineteen_lines_is_read_to_its_end():
    lines = [["."] * 19 for _ in range(19)]
    for r, c, letter in ((1, 2, "X"), (2, 1, "X"), (3, 1, "X"), (2, 2, "O"), (2, 3, "X")):
        lines[r][c] = letter
    text = "\n".join("".join(line) for line in lines)
    assert marked(text, go.WHITE, 45) == set()
    assert marked(with_stone(text, 16, 16, "O"), go.WHITE, 45) == {(3, 2)}
    assert marked(with_stone(text, 16, 16, "X"), go.WHITE, 45) == set()


def test_a_stone_on_the_second_line_is_driven_along_the_edge():
    text = """
    .....
    .X...
    XO...
    .X...
    ....."""
    assert marked(text, go.WHITE, 45) == {(2, 2)}  # three liberties at once
    edge = """
    OX...
    .....
    .....
    .....
    ....."""
    assert marked(edge, go.BLACK, 44) == set()  # one liberty: to be taken, no ladder
    assert marked(edge, go.WHITE, 45) == set()
    assert marked(with_stone(edge, 0, 1, "."), go.BLACK, 44) == {(0, 1), (1, 0)}


def test_taking_an_attacker_breaks_a_ladder():
    text = """
    OX...
    .OX..
    OX...
    .....
    ....."""
    assert marked(text, go.WHITE, 45) == {(0, 2)}  # takes (0, 1); running to (1, 0) leaves one liberty
    assert marked(with_stone(text, 0, 2, "X"), go.WHITE, 45) == set()


def test_a_snapback_saves_nobody():
    text = """
    O.XO.
    XOO..
    X....
    .....
    ....."""
    assert planes(diagram(text, go.BLACK))[0, 20, 0, 1]  # black can take the corner
    assert marked(text, go.BLACK, 45) == set()  # and is taken back with it


def test_symmetries():
    for n in (2, 5, 9):
        table = symmetries(n)
        assert len({tuple(t) for t in table}) == 8
        for s in range(8):
            np.testing.assert_array_equal(table[INVERSE[s]][table[s]], np.arange(n * n + 1))
    positions, _ = games(9, 3, 1, 7)
    plain, small = planes(positions, 49), small_planes(positions)
    k = len(plain)
    for s in range(8):
        turned = np.empty_like(positions.rows)
        for i in range(k):  # the same stones set turned, and what the row says of moves with them
            turned[i] = turned_row(positions.rows[i], s, 9)
        there = Positions(turned, positions.history)
        flat = turn(plain.reshape(k, 49, 81), s, 9).reshape(plain.shape)
        np.testing.assert_array_equal(planes(there, 49), flat)
        np.testing.assert_array_equal(planes(positions, 49, symmetry=s), flat)
        np.testing.assert_array_equal(small_planes(there), small_planes(positions, symmetry=s))
    each = np.arange(k) % 8
    np.testing.assert_array_equal(
        planes(positions, 49, symmetry=each).reshape(k, 49, 81), turn(plain.reshape(k, 49, 81), each, 9)
    )
    policy = np.random.default_rng(0).random((k, 82))
    np.testing.assert_array_equal(turn(turn(policy, each, 9), INVERSE[each], 9), policy)
    np.testing.assert_array_equal(turn(policy, each, 9)[1][symmetries(9)[1]], policy[1])
    assert small.shape == (k, 18, 9, 9)


def turned_row(row, s, n):
    """The position with each stone where symmetry s brings it."""
    new = np.empty_like(row)
    go.clear(new, n)
    table = symmetries(n)[s]
    stones = [p for p in range(go.points(n)) if row[go.at(p, go.COLOUR)] in (go.BLACK, go.WHITE)]

    def there(p):
        return go.to_point(n, int(table[go.to_action(n, int(p))]))

    for p in stones:
        new[go.TURN] = row[go.at(p, go.COLOUR)]
        go.play(new, there(p))
        new[go.at(there(p), go.AGE)] = row[go.at(p, go.AGE)]
    for field in (go.TURN, go.PASSES, go.MOVES):
        new[field] = row[field]
    for field in (go.KO, go.LAST, go.BEFORE):
        new[field] = there(row[field])
    return new


def test_output_of_ones_own_and_bad_requests():
    positions, _ = games(5, 1, 1)
    out = np.full((len(positions.rows), 48, 5, 5), 7, np.float32)
    assert planes(positions, out=out) is out
    np.testing.assert_array_equal(out, planes(positions))
    assert planes(positions.take(slice(0, 0))).shape == (0, 48, 5, 5)
    with pytest.raises(VolitionError, match="47 planes"):
        planes(positions, 47)
    with pytest.raises(VolitionError, match="contiguous"):
        planes(positions, out=out[:, :, ::-1])
    with pytest.raises(VolitionError, match="0 to 7"):
        planes(positions, symmetry=8)
