"""Ladders in Go: whether a chain that is given atari at every move is caught."""

import numpy as np

from volition.envs import go
from volition.envs.go import CHAIN, COLOUR, EMPTY, LIBS, NEXT, SIZE, SUM, TURN, at, in_atari, jit

NODES = 1000  # moves read before a ladder counts as not working: one across a 19x19 board has about 70
DEPTH = 24  # choices open at a time
OPTIONS = 16  # moves of a defender that are looked at


@jit
def workspace(n):
    """Memory for reading: rows `[DEPTH, S]`, moves `[DEPTH + 1, OPTIONS]`, state `[DEPTH, 2]` and numbers `[4]`."""
    return (
        np.empty((DEPTH, go.HEAD + 10 * go.points(n)), np.int32),
        np.empty((DEPTH + 1, OPTIONS), np.int32),
        np.empty((DEPTH, 2), np.int32),
        np.empty(4, np.int64),
    )


@jit
def find_liberties(row, s, found):
    """Liberties of the chain of stone s, counted up to 3; the first ones in found."""
    w = row[SIZE] + 1
    count, r = 0, s
    while True:
        for q in (r - w, r - 1, r + 1, r + w):
            if row[at(q, COLOUR)] == EMPTY and (count == 0 or found[0] != q) and (count < 2 or found[1] != q):
                found[count] = q
                count += 1
                if count == 3:
                    return count
        r = row[at(r, NEXT)]
        if r == s:
            return count


@jit
def find_answers(row, s, moves):
    """What may save the chain of s, which is in atari: moves that take a neighbour in atari, and last its liberty."""
    w = row[SIZE] + 1
    foe = 3 - row[at(s, COLOUR)]
    h = row[at(s, CHAIN)]
    own = row[at(h, SUM)] // row[at(h, LIBS)]
    count, r = 0, s
    while True:
        for q in (r - w, r - 1, r + 1, r + w):
            if row[at(q, COLOUR)] != foe:
                continue
            g = row[at(q, CHAIN)]
            if not in_atari(row, g):
                continue
            p = row[at(g, SUM)] // row[at(g, LIBS)]
            known = p == own or count == OPTIONS - 1
            for i in range(count):
                known |= moves[i] == p
            if not known:
                moves[count] = p
                count += 1
        r = row[at(r, NEXT)]
        if r == s:
            break
    moves[count] = own
    return count + 1


@jit
def _room(row, p, other):
    """Empty neighbours of p, `other` apart."""
    w = row[SIZE] + 1
    count = 0
    for q in (p - w, p - 1, p + 1, p + w):
        count += row[at(q, COLOUR)] == EMPTY and q != other
    return count


@jit
def _options(row, s, defends, moves, numbers):
    """Moves worth a look for the side to move, written to moves; how many."""
    if defends:
        return find_answers(row, s, moves)
    find_liberties(row, s, numbers[1:])
    p, q = numbers[1], numbers[2]
    count = 0
    for here, there in ((p, q), (q, p)):
        # if the chain has three liberties after running out `there`, no atari from `here` catches it
        if _room(row, there, here) < 3:
            moves[count] = here
            count += 1
    return count


@jit
def _saved(rows, moves, state, numbers, s):
    """Whether the chain of s gets away in rows[0], in atari if its side is to move, else with two liberties.

    A search in depth without recursion, which numba's cache does not survive. rows[d] waits with the options moves[d],
    of which state[d, 0] of state[d, 1] are tried; the last option is played in rows[d] itself. numbers[0] is how many
    moves may be read.
    """
    mine = rows[0, at(s, COLOUR)]
    d, enter, value = 0, True, True
    while d >= 0:
        defends = rows[d, TURN] == mine
        if enter:
            numbers[0] -= 1
            known = numbers[0] < 0
            if not known:
                state[d, 0], state[d, 1] = 0, _options(rows[d], s, defends, moves[d], numbers)
        else:
            known = value == defends
        enter = False
        while not known:
            i = state[d, 0]
            if i == state[d, 1]:
                known, value = True, not defends
                break
            state[d, 0] += 1
            p = moves[d, i]
            if not go.legal(rows[d], p):
                continue
            t = d if i + 1 == state[d, 1] else d + 1
            if t == DEPTH:
                known, value = True, True
                break
            if t != d:
                go.copy(rows[d], rows[t])
            go.play(rows[t], p)
            left = find_liberties(rows[t], s, numbers[1:]) if defends else 2
            if left == 2:
                d, enter, value = t, True, True
                break
            value = left > 2
            known = t == d or value == defends
        if known:
            d -= 1
    return value


@jit
def captures(row, s, room, to, plane):
    """Mark in plane `[N²]`, at to[action], the moves that catch the other side's chain of s, of two liberties."""
    rows, moves, state, numbers = room
    find_liberties(row, s, numbers[1:])
    p, q = numbers[1], numbers[2]
    for here, there in ((p, q), (q, p)):
        if _room(row, there, here) > 2 or not go.legal(row, here):
            continue
        go.copy(row, rows[0])
        numbers[0] = NODES
        go.play(rows[0], here)
        if not _saved(rows, moves, state, numbers, s):
            plane[to[go.to_action(row[SIZE], here)]] = 1


@jit
def escapes(row, s, room, to, plane):
    """Mark in plane `[N²]`, at to[action], the moves that save one's own chain of s, which is in atari."""
    rows, moves, state, numbers = room
    n = row[SIZE]
    count = find_answers(row, s, moves[DEPTH])
    for i in range(count):
        p = moves[DEPTH, i]
        if plane[to[go.to_action(n, p)]] or not go.legal(row, p):
            continue
        go.copy(row, rows[0])
        numbers[0] = NODES
        go.play(rows[0], p)
        left = find_liberties(rows[0], s, numbers[1:])
        if left > 2 or (left == 2 and _saved(rows, moves, state, numbers, s)):
            plane[to[go.to_action(n, p)]] = 1
