"""Which stones are dead when both sides have passed: random games from there to their end, and who then owns what.

A chain whose points its owner seldom keeps is dead, be it in random games or in `careful` ones, in which no chain of
several stones puts itself into atari: these judge better, but for those who die by what is thrown into their eye. Where
two chains are in seki whoever moves first loses: random games are of two minds about both, careful ones leave them.
"""

import numpy as np

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go import jit
from volition.envs.go_game import Go

ALIVE, DEAD, SEKI, EMPTY = 0, 1, 2, 3
KEPT = 0.42  # a chain is dead if its owner has less than this share of its points at the end, in either kind of game
SURE = 0.9  # and surely alive from this share on, or dead up to the rest
GAMES = 200


def owners(rules: Go, positions: Positions, games: int, random: np.ndarray, careful: bool = False) -> np.ndarray:
    """Who owns each point at the end of random games, float32 `[K, N²]`: mean of 1 for black, −1 for white, 0 nobody.

    Each side begins half of the games. In `careful` ones no move puts a chain of two stones or more into atari. random
    is uint64 `[1]`, the state of the generator.
    """
    mean = np.zeros((len(positions.rows), rules.size**2), np.float32)
    _owners(positions.rows, games, random, careful, mean)
    return mean


def status(rules: Go, positions: Positions, random: np.ndarray, games: int = GAMES) -> np.ndarray:
    """`ALIVE`, `DEAD` or `SEKI` of each stone, `EMPTY` of other points, int8 `[K, N²]`; chains are all of one kind."""
    often = owners(rules, positions, games, random)
    calm = owners(rules, positions, games, random, careful=True)
    found = np.empty(often.shape, np.int8)
    _status(positions.rows, often, calm, found)
    return found


def without(positions: Positions, dead: np.ndarray) -> Positions:
    """The positions without the chains of the stones dead `[K, N²]`; made for counting, not for playing on."""
    rows = positions.rows.copy()
    _without(rows, dead)
    return Positions(rows, positions.history)


@jit
def _endangers(row, p):
    """Whether the legal move p makes a chain of two stones or more that is in atari, and takes nothing."""
    w, me = row[go.SIZE] + 1, row[go.TURN]
    liberty = go.PASS
    for q in (p - w, p - 1, p + 1, p + w):
        c = row[go.at(q, go.COLOUR)]
        if c == go.EMPTY:
            if liberty != go.PASS:
                return False
            liberty = q
        elif c == 3 - me and go.in_atari(row, row[go.at(q, go.CHAIN)]):
            return False
    friends = False
    for q in (p - w, p - 1, p + 1, p + w):
        if row[go.at(q, go.COLOUR)] != me:
            continue
        friends, r = True, q
        while True:
            for x in (r - w, r - 1, r + 1, r + w):
                if row[go.at(x, go.COLOUR)] == go.EMPTY and x != p and x != liberty:
                    if liberty != go.PASS:
                        return False
                    liberty = x
            r = row[go.at(r, go.NEXT)]
            if r == q:
                break
    return friends


@jit
def _careful_move(row, random):
    """As `go.random_move`, and no chain of two stones or more puts itself into atari."""
    me, left = row[go.TURN], np.int64(row[go.EMPTIES])
    while left > 0:
        i = (go.next_random(random) * left) >> np.int64(32)
        p = row[go.free_at(row, i)]
        if go.legal(row, p) and not go.own_eye(row, p, me) and not _endangers(row, p):
            return p
        left -= 1  # among those before `left` p is not looked at again
        last = row[go.free_at(row, left)]
        row[go.free_at(row, left)], row[go.free_at(row, i)] = p, last
        row[go.place_at(row, p)], row[go.place_at(row, last)] = left, i
    return go.PASS


@jit
def _owners(rows, games, random, careful, mean):
    n = rows[0, go.SIZE]
    work, owner = np.empty_like(rows[0]), np.empty(go.points(n), np.int8)
    for k in range(len(rows)):
        for g in range(games):
            go.copy(rows[k], work)
            work[go.TURN] = go.BLACK if g % 2 == 0 else go.WHITE
            work[go.KO], work[go.PASSES], work[go.MOVES] = go.PASS, 0, 0
            if careful:
                while work[go.PASSES] < 2 and work[go.MOVES] < 3 * n * n:
                    go.play(work, _careful_move(work, random))
            else:
                go.random_game(work, random, 3 * n * n)
            go.area(work, owner)
            for a in range(n * n):
                c = owner[go.to_point(n, a)]
                mean[k, a] += np.int64(c == go.BLACK) - np.int64(c == go.WHITE)
        mean[k] /= games


@jit
def _share(row, h, mean):
    """Which share of the chain h's points is its owner's at the end."""
    n, sign = row[go.SIZE], 3 - 2 * row[go.at(h, go.COLOUR)]
    total, count, p = 0.0, 0, h
    while True:
        total += 0.5 + 0.5 * sign * mean[go.to_action(n, p)]
        count += 1
        p = row[go.at(p, go.NEXT)]
        if p == h:
            return total / count


@jit
def _status(rows, often, calm, found):
    n = rows[0, go.SIZE]
    w, size = n + 1, go.points(n)
    kind = np.empty(size, np.int8)  # at the point that stands for a chain
    torn = np.empty(size, np.bool_)
    for k in range(len(rows)):
        row = rows[k]
        kind[:], torn[:] = EMPTY, False
        for p in range(size):
            c = row[go.at(p, go.COLOUR)]
            if (c == go.BLACK or c == go.WHITE) and row[go.at(p, go.CHAIN)] == p:
                share, kept = _share(row, p, often[k]), _share(row, p, calm[k])
                kind[p] = DEAD if min(share, kept) < KEPT else ALIVE
                torn[p] = 1 - SURE <= share < SURE <= kept
        for i in range(row[go.EMPTIES]):  # seki: two such chains, one of either side, have a liberty in common
            e = row[go.free_at(row, i)]
            seen = 0
            for q in (e - w, e - 1, e + 1, e + w):
                if row[go.at(q, go.COLOUR)] != go.EMPTY and torn[row[go.at(q, go.CHAIN)]]:
                    seen |= row[go.at(q, go.COLOUR)]
            if seen == go.BLACK | go.WHITE:
                for q in (e - w, e - 1, e + 1, e + w):
                    h = row[go.at(q, go.CHAIN)]
                    if row[go.at(q, go.COLOUR)] != go.EMPTY and torn[h]:
                        kind[h] = SEKI
        for a in range(n * n):
            p = go.to_point(n, a)
            found[k, a] = EMPTY if row[go.at(p, go.COLOUR)] == go.EMPTY else kind[row[go.at(p, go.CHAIN)]]


@jit
def _without(rows, dead):
    for k in range(len(rows)):
        row = rows[k]
        n = row[go.SIZE]
        for a in range(n * n):
            p = go.to_point(n, a)
            c = row[go.at(p, go.COLOUR)]
            if dead[k, a] and (c == go.BLACK or c == go.WHITE):
                go.take(row, row[go.at(p, go.CHAIN)])
