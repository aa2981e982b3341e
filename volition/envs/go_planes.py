"""What networks see of a Go position: the 48 or 49 planes of AlphaGo, a small set, and the eight symmetries.

All is seen by the side to move. A number k becomes eight planes, of which number min(k, 8) is 1; 0 is none of them.

plane   feature (Silver et al. 2016, Extended Data table 2)
0–2     stones: own, the opponent's, none
3       ones
4–11    turns since: 1 for the last move; of stones that still stand
12–19   liberties of the stone's chain
20–27   capture size: opponent's stones taken by playing here
28–35   self-atari size: stones of one's own chain if playing here leaves it one liberty
36–43   liberties after move: of one's own chain after playing here
44      ladder capture: playing here puts a chain with two liberties into a ladder that works
45      ladder escape: playing here saves a chain that is in atari, by running out or by taking
46      sensibleness: legal and fills no own eye
47      zeros
48      player colour: all ones where black is to play; for the value network

Where the paper is silent: planes 20–46 are 0 where a move is illegal (superko apart, for which the past is needed);
a ladder's attacker gives atari with each move, a defender with three liberties is safe, and a ko saves nobody.
"""

from functools import cache

import numpy as np

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go import AGE, BLACK, CHAIN, COLOUR, EMPTY, MOVES, SIZE, TURN, at, jit
from volition.envs.go_ladders import captures, escapes, workspace
from volition.envs.go_liberties import after, after_taking, count_liberties, memory, stones_after
from volition.errors import VolitionError

STONE, ONES, SINCE, LIBERTIES, CAPTURE, SELF_ATARI, AFTER = 0, 3, 4, 12, 20, 28, 36
LADDER_CAPTURE, LADDER_ESCAPE, SENSIBLE, COLOURS = 44, 45, 46, 48
SMALL = 18
"""Planes of `small_planes`."""
INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7])
"""INVERSE[s] undoes symmetry s."""


@cache
def symmetries(n: int) -> np.ndarray:
    """Where the eight symmetries bring each action, int64 `[8, N² + 1]`, not to be written to; the pass stays.

    Symmetry s turns the rows round if s & 1, the columns if s & 2, and then swaps rows and columns if s & 4.
    """
    r, c = np.divmod(np.arange(n * n), n)
    table = np.full((8, n * n + 1), n * n)
    for s in range(8):
        rows, columns = (n - 1 - r if s & 1 else r), (n - 1 - c if s & 2 else c)
        table[s, : n * n] = columns * n + rows if s & 4 else rows * n + columns
    table.flags.writeable = False
    return table


def turn(x: np.ndarray, symmetry: int | np.ndarray, n: int) -> np.ndarray:
    """x `[K, …, N²]` or `[K, …, N² + 1]` by action, turned by a symmetry or one each `[K]`."""
    each = symmetry if isinstance(symmetry, np.ndarray) else np.full(len(x), symmetry)
    back = symmetries(n)[INVERSE[each], : x.shape[-1]]
    if x.ndim == 2:  # a search turns priors all the time: half the time of what follows
        return x[np.arange(len(x))[:, None], back]
    return np.take_along_axis(x, back.reshape(len(x), *[1] * (x.ndim - 2), -1), -1)


def planes(
    positions: Positions,
    count: int = 48,
    ladders: bool = True,
    symmetry: int | np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """AlphaGo's input, uint8 `[K, count, N, N]`, count being 48, or 49 with the player's colour.

    Without `ladders` planes 44 and 45 stay 0. symmetry is what the boards are turned by, one for all or `[K]`. The
    result is written into `out`, of any type of number, where it is given.
    """
    if count not in (48, 49):
        raise VolitionError(f"{count} planes: there are 48, or 49 with the player's colour")
    out, table, how = _prepare(positions, count, symmetry, out)
    if len(out):
        _planes(positions.rows, ladders, table, how, out.reshape(len(out), count, -1))
    return out


def small_planes(
    positions: Positions, symmetry: int | np.ndarray | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """A small input for residual networks, uint8 `[K, 18, N, N]`.

    0, 1 own and opponent's stones · 2–5 own chains with 1, 2, 3, ≥ 4 liberties · 6–9 the opponent's · 10–13 the last
    move, the one before, and those before them if they still stand · 14 the point that ko forbids · 15 ones ·
    16 black is to play · 17 the last move was a pass.
    """
    out, table, how = _prepare(positions, SMALL, symmetry, out)
    if len(out):
        _small(positions.rows, table, how, out.reshape(len(out), SMALL, -1))
    return out


def _prepare(
    positions: Positions, count: int, symmetry: int | np.ndarray | None, out: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = positions.rows
    n = int(((rows.shape[1] - go.HEAD) // 10 - 1) ** 0.5) - 1
    shape = (len(rows), count, n, n)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or not out.flags.c_contiguous:
        raise VolitionError(f"planes need a contiguous array {shape}, not {out.shape}")
    how = np.zeros(len(rows), np.int64)
    if symmetry is not None:
        how[:] = symmetry
    if len(how) and not 0 <= how.min() <= how.max() <= 7:
        raise VolitionError("symmetries are numbered 0 to 7")
    return out, symmetries(n), how


@jit
def _planes(rows, ladders, table, how, out):
    n = rows[0, SIZE]
    sets, libs = memory(n)
    room = workspace(n if ladders else 1)
    for k in range(len(rows)):
        row, x, to = rows[k], out[k], table[how[k]]
        me = row[TURN]
        x[:] = 0
        x[ONES] = 1
        if len(x) > COLOURS and me == BLACK:
            x[COLOURS] = 1
        count_liberties(row, sets, libs)
        p = n + 1
        for i in range(n * n):
            p += 1 + (i % n == 0 and i > 0)
            a = np.uintp(to[i])
            c = row[at(p, COLOUR)]
            if c != EMPTY:
                x[STONE + (c != me), a] = 1
                x[SINCE + min(row[MOVES] - row[at(p, AGE)], 7), a] = 1
                x[LIBERTIES - 1 + min(libs[row[at(p, CHAIN)]], 8), a] = 1
                continue
            x[STONE + 2, a] = 1
            if p == row[go.KO]:
                continue
            free = after(row, p, sets, libs)
            if free == 0:
                continue
            if free < 0:
                taken, free = after_taking(row, p, sets, libs)
                x[CAPTURE - 1 + min(taken, 8), a] = 1
            if free == 1:
                x[SELF_ATARI - 1 + min(stones_after(row, p), 8), a] = 1
            x[AFTER - 1 + free, a] = 1
            x[SENSIBLE, a] = not go.own_eye(row, p, me)
        if ladders:
            for p in range(len(libs)):
                c = row[at(p, COLOUR)]
                if (c != BLACK and c != go.WHITE) or row[at(p, CHAIN)] != p:
                    continue
                if c != me and libs[p] == 2:
                    captures(row, p, room, to, x[LADDER_CAPTURE])
                elif c == me and libs[p] == 1:
                    escapes(row, p, room, to, x[LADDER_ESCAPE])


@jit
def _small(rows, table, how, out):
    n = rows[0, SIZE]
    sets, libs = memory(n)
    for k in range(len(rows)):
        row, x, to = rows[k], out[k], table[how[k]]
        x[:] = 0
        x[15] = 1
        x[16] = row[TURN] == BLACK
        x[17] = row[go.LAST] == go.PASS and row[go.PASSES] > 0
        count_liberties(row, sets, libs)
        p = n + 1
        for i in range(n * n):
            p += 1 + (i % n == 0 and i > 0)
            c = row[at(p, COLOUR)]
            if c == EMPTY:
                continue
            foe = c != row[TURN]
            x[0 + foe, to[i]] = 1
            x[1 + 4 * foe + min(libs[row[at(p, CHAIN)]], 4), to[i]] = 1
            since = row[MOVES] - row[at(p, AGE)]
            if since == 2 or since == 3:
                x[10 + since, to[i]] = 1
        for i, p in ((10, row[go.LAST]), (11, row[go.BEFORE]), (14, row[go.KO])):
            if p != go.PASS:
                x[i, to[go.to_action(n, p)]] = 1
