"""Small patterns of Go positions as features of moves, after AlphaGo's rollout policy.

Features as in Silver et al. 2016, Extended Data table 4, by their place in a vector of weights `[WEIGHTS]`:

RESPONSE    p is one of the twelve points at distance one or two of the last move (along the lines)
SAVE        a chain beside the last move is in atari, and has two liberties after p: by running out or by taking
NEIGHBOUR   p is one of the eight neighbours of the last move
NAKADE      p is the heart of an empty space of 3 to 6 points beside the last move, walled in by the opponent: the one
            point with most neighbours in it, 2, 3 or 4; by both numbers (the paper has 8,192 shapes)
DIAMOND     the thirteen points around and at the last move, and which of them p is: hashed to 16 bits
SQUARE      the eight points around p

Patterns are seen by the side to move, the same in all eight symmetries. A point is empty, off the board, or a stone of
either side whose chain has 1, 2, or more liberties; of the corners of a square only colours count, so that its code has
20 bits. Whether a move is legal, ko apart, and no own eye can be read off that code.
"""

from functools import cache

import numpy as np

from volition.envs import go
from volition.envs.go import CHAIN, COLOUR, EMPTY, LAST, PASS, SIZE, TURN, WALL, at, jit
from volition.envs.go_ladders import find_answers, find_liberties

RESPONSE, SAVE, NEIGHBOUR, NAKADE, DIAMOND = 0, 1, 2, 3, 15
SQUARE = DIAMOND + 2**16
WEIGHTS = SQUARE + 2**20
MOST = 64  # features of the last move in one position
AROUND = np.array([(r, c) for r in range(-2, 3) for c in range(-2, 3) if 0 < abs(r) + abs(c) < 3] + [(0, 0)])
_dice = np.random.default_rng(20160128)
STATES, PLACES = _dice.integers(0, 2**62, (13, 8)), _dice.integers(0, 2**62, 13)


def _turned(points: np.ndarray) -> np.ndarray:
    """Which of points `[J, 2]`, (row, column) from their middle, each becomes in the eight symmetries, `[8, J]`."""
    rows, columns = points.T
    found = [(a * x, b * y) for a in (1, -1) for b in (1, -1) for x, y in ((rows, columns), (columns, rows))]
    order = {(int(r), int(c)): j for j, (r, c) in enumerate(points)}
    return np.array([[order[int(r), int(c)] for r, c in zip(x, y, strict=True)] for x, y in found])


TURNED = _turned(AROUND)


@cache
def squares() -> tuple[np.ndarray, np.ndarray]:
    """For each code of a square, `[2²⁰]`: the least code among its symmetries, and whether to play in it."""
    code = np.arange(2**20, dtype=np.int32)
    points = np.array([(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)])
    shift = [0, 3, 6, 9, 12, 14, 16, 18]
    field = [code >> s & (7 if s < 12 else 3) for s in shift]
    least = code
    for turned in _turned(points):
        new = np.zeros_like(code)
        for j in range(8):
            new |= field[j] << shift[turned[j]]
        least = np.minimum(least, new)
    legal, eye = np.zeros(2**20, bool), np.ones(2**20, bool)
    for side in field[:4]:
        legal |= (side == 0) | (side == 3) | (side == 4) | (side == 5)
        eye &= (side > 0) & (side < 5)
    foes, walls = (sum((corner == c).astype(np.int8) for corner in field[4:]) for c in (3, 1))
    eye &= foes + (walls > 0) < 2
    return least, legal & ~eye


@jit
def memory(n):
    """Memory for one position: see `[P]`, count `[2, P]`, a row, moves `[16]`, found `[3]`, spots and features."""
    size = go.points(n)
    return (
        np.empty(size, np.int32),
        np.empty((2, size), np.int32),
        np.empty(go.HEAD + 10 * size, np.int32),
        np.empty(16, np.int32),
        np.empty(3, np.int64),
        np.empty(MOST, np.int32),
        np.empty(MOST, np.int32),
    )


@jit
def look(row, see, count):
    """see `[P]`: 0 empty, 1 off the board, 2–4 own stone by liberties, 5–7 the opponent's; count `[2, P]` is used."""
    n, me = row[SIZE], row[TURN]
    w = n + 1
    count[:] = 0
    first = np.uintp(go.HEAD + 8 * len(see))
    for i in range(row[go.EMPTIES]):
        p = row[first + np.uintp(i)]
        for q in (p - w, p - 1, p + 1, p + w):
            h = np.uintp(row[at(q, CHAIN)] * (row[at(q, COLOUR)] != EMPTY))
            count[0, h] += count[1, h] != p
            count[1, h] = p
    for p in range(len(see)):
        c = row[at(p, COLOUR)]
        if c == EMPTY or c == WALL:
            see[p] = c == WALL
        else:
            see[p] = 1 + min(count[0, row[at(p, CHAIN)]], 3) + 3 * (c != me)


@jit
def square(see, p, w):
    """The code of the square around p."""
    n, o, e, s = np.uintp(p - w), np.uintp(p - 1), np.uintp(p + 1), np.uintp(p + w)
    one = np.uintp(1)
    code = see[n] | see[o] << 3 | see[e] << 6 | see[s] << 9
    # 0 empty, 1 off, 2 own, 3 the opponent's: (x + 4) // 3 − 1 but for 0 and 1, which are as they are
    a, b, c, d = see[n - one], see[n + one], see[s - one], see[s + one]
    a, b, c, d = (
        (a > 0) + (a > 1) + (a > 4),
        (b > 0) + (b > 1) + (b > 4),
        (c > 0) + (c > 1) + (c > 4),
        (d > 0) + (d > 1) + (d > 4),
    )
    return code | a << 12 | b << 14 | c << 16 | d << 18


@jit
def _nakade(row, start, space):
    """The heart of the space of the empty point start and its feature, or (PASS, 0); space `[≥ 6]` is used."""
    w, me = row[SIZE] + 1, row[TURN]
    space[0] = start
    count, seen, good = 1, 0, True
    while good and seen < count:
        p = space[seen]
        seen += 1
        for q in (p - w, p - 1, p + 1, p + w):
            c = row[at(q, COLOUR)]
            if c == me:
                good = False
            elif c == EMPTY:
                known = False
                for i in range(count):
                    known |= space[i] == q
                if not known and count == 6:
                    good = False
                elif not known:
                    space[count] = q
                    count += 1
    heart, best, ties = PASS, 1, 0
    for i in range(count if good and count > 2 else 0):
        p = space[i]
        degree = 0
        for q in (p - w, p - 1, p + 1, p + w):
            degree += row[at(q, COLOUR)] == EMPTY
        if degree > best:
            heart, best, ties = p, degree, 0
        elif degree == best:
            ties += 1
    return (heart, NAKADE + 3 * (count - 3) + best - 2) if heart != PASS and ties == 0 else (PASS, 0)


@jit
def last_move(row, see, work, moves, found, spots, features):
    """All features but those of squares: of which points `[MOST]` and which `[MOST]`; how many."""
    last, n = row[LAST], row[SIZE]
    total = 0
    if last != PASS:
        w = n + 1
        r, c = last // w - 1, last % w - 1
        least = np.int64(2**62)
        hashes = np.zeros(8, np.int64)
        for j in range(13):
            y, x = r + AROUND[j, 0], c + AROUND[j, 1]
            state = 1
            if 0 <= y < n and 0 <= x < n:
                state = see[(y + 1) * w + x + 1]
            for t in range(8):
                hashes[t] ^= STATES[TURNED[t, j], state]
        for t in range(8):
            least = min(least, hashes[t])
        for j in range(12):
            y, x = r + AROUND[j, 0], c + AROUND[j, 1]
            if not (0 <= y < n and 0 <= x < n):
                continue
            p = (y + 1) * w + x + 1
            if see[p] != 0:
                continue
            place = np.int64(2**62)
            for t in range(8):  # in a symmetric pattern several symmetries are as good
                if hashes[t] == least:
                    place = min(place, least ^ PLACES[TURNED[t, j]])
            spots[total], features[total] = p, RESPONSE
            spots[total + 1], features[total + 1] = p, DIAMOND + ((place >> 20) & 0xFFFF)
            total += 2
            if abs(AROUND[j, 0]) < 2 and abs(AROUND[j, 1]) < 2:
                spots[total], features[total] = p, NEIGHBOUR
                total += 1
        begin = total
        for q in (last - w, last - 1, last + 1, last + w):
            point, feature = PASS, 0
            if see[q] == 0:
                point, feature = _nakade(row, q, moves)
            if point != PASS:
                total = _add(spots, features, begin, total, point, feature)
            if see[q] != 2:
                continue
            for i in range(find_answers(row, q, moves)):
                p = moves[i]
                if go.legal(row, p):
                    go.copy(row, work)
                    go.play(work, p)
                    if find_liberties(work, q, found) > 1:
                        total = _add(spots, features, begin, total, p, SAVE)
    return total


@jit
def _add(spots, features, begin, total, p, feature):
    """Note a feature of p that is not yet there among those from begin; how many there are then."""
    known = total == MOST
    for i in range(begin, total):
        known |= spots[i] == p and features[i] == feature
    if not known:
        spots[total], features[total] = p, feature
        total += 1
    return total
