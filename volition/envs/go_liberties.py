"""Exact liberties of all chains of a Go position at once, as sets of bits, and what a move would make of them."""

import numpy as np

from volition.envs import go
from volition.envs.go import CHAIN, COLOUR, EMPTY, SIZE, STONES, TURN, WALL, at, inline, jit


@inline
def ones(x):
    """How many bits of the uint64 x are 1."""
    x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@jit
def memory(n):
    """Memory for counting on boards of side n: sets uint64 `[P, P/64]` and libs `[P]`."""
    size, words = go.points(n), go.points(n) // 64 + 1
    return np.empty((size, words), np.uint64), np.empty(size, np.int32)


@inline
def _word(p):
    """Which number of a set has the bit of point p."""
    return np.uintp(p) >> np.uintp(6)


@inline
def _bit(p):
    """The bit of point p in its number of a set."""
    return np.uint64(1) << (np.uint64(p) & np.uint64(63))


@jit
def count_liberties(row, sets, libs):
    """At the point that stands for a chain: sets `[P, P/64]`, its liberties as bits, and libs `[P]`, how many."""
    w = row[SIZE] + 1
    sets[:] = 0
    first = np.uintp(go.HEAD + 8 * len(libs))
    for i in range(row[go.EMPTIES]):
        p = row[first + np.uintp(i)]
        word, bit = _word(p), _bit(p)
        # what is empty has chain 0 here, as walls have: no branch; written out, for loops over tuples cost more
        n, o, e, s = p - w, p - 1, p + 1, p + w
        sets[np.uintp(row[at(n, CHAIN)] * (row[at(n, COLOUR)] != EMPTY)), word] |= bit
        sets[np.uintp(row[at(o, CHAIN)] * (row[at(o, COLOUR)] != EMPTY)), word] |= bit
        sets[np.uintp(row[at(e, CHAIN)] * (row[at(e, COLOUR)] != EMPTY)), word] |= bit
        sets[np.uintp(row[at(s, CHAIN)] * (row[at(s, COLOUR)] != EMPTY)), word] |= bit
    for p in range(w, len(libs) - w):
        if row[at(p, CHAIN)] == p and row[at(p, COLOUR)] != EMPTY:
            total = 0
            for word in range(sets.shape[1]):
                total += ones(sets[p, word])
            libs[p] = total
    sets[0] = 0  # the chain of walls
    libs[0] = 0


@inline
def _new(colour, word, q):
    """1 if q, of that colour, is empty and not in that number of a set."""
    return np.int64((colour == EMPTY) & ((word & _bit(q)) == np.uint64(0)))


@jit
def _joined(row, sets, p, f, g, h, i):
    """Liberties of the chains f, g, h, i and the new stone p, as one chain."""
    w = row[SIZE] + 1
    n, o, e, s = p - w, p - 1, p + 1, p + w
    a, b = np.uint64(row[at(n, COLOUR)] == EMPTY), np.uint64(row[at(o, COLOUR)] == EMPTY)
    c, d = np.uint64(row[at(e, COLOUR)] == EMPTY), np.uint64(row[at(s, COLOUR)] == EMPTY)
    free = 0
    for j in range(sets.shape[1]):
        word = np.uintp(j)
        u = sets[f, word] | sets[g, word] | sets[h, word] | sets[i, word]
        u |= a * _bit(n) * np.uint64(_word(n) == word) | b * _bit(o) * np.uint64(_word(o) == word)
        u |= c * _bit(e) * np.uint64(_word(e) == word) | d * _bit(s) * np.uint64(_word(s) == word)
        free += ones(u & ~(_bit(p) * np.uint64(_word(p) == word)))
    return free


@jit
def after(row, p, sets, libs):
    """Liberties, up to 8, of its chain after the side to move plays the empty point p; −1 if the move takes stones.

    Suicide leaves none. sets and libs are those of `count_liberties`.
    """
    w, me = row[SIZE] + 1, row[TURN]
    n, o, e, s = p - w, p - 1, p + 1, p + w
    a, b, c, d = row[at(n, COLOUR)], row[at(o, COLOUR)], row[at(e, COLOUR)], row[at(s, COLOUR)]
    f, g = np.uintp(row[at(n, CHAIN)] * (a != EMPTY)), np.uintp(row[at(o, CHAIN)] * (b != EMPTY))
    h, i = np.uintp(row[at(e, CHAIN)] * (c != EMPTY)), np.uintp(row[at(s, CHAIN)] * (d != EMPTY))
    foe = 3 - me
    takes = ((a == foe) & (libs[f] == 1)) | ((b == foe) & (libs[g] == 1))
    takes |= ((c == foe) & (libs[h] == 1)) | ((d == foe) & (libs[i] == 1))
    f, g, h, i = f * np.uintp(a == me), g * np.uintp(b == me), h * np.uintp(c == me), i * np.uintp(d == me)
    k = max(f, g, h, i)
    one = ((f == k) | (f == 0)) & ((g == k) | (g == 0)) & ((h == k) | (h == 0)) & ((i == k) | (i == 0))
    free = (a == EMPTY) + (b == EMPTY) + (c == EMPTY) + (d == EMPTY)
    if takes:
        free = -1
    elif max(libs[f], libs[g], libs[h], libs[i]) > 8:
        free = 8
    elif one and k:
        free = libs[k] - 1 + _new(a, sets[k, _word(n)], n) + _new(b, sets[k, _word(o)], o)
        free += _new(c, sets[k, _word(e)], e) + _new(d, sets[k, _word(s)], s)
    elif k:
        free = _joined(row, sets, p, f, g, h, i)
    return min(free, 8)


@jit
def after_taking(row, p, sets, libs):
    """Stones taken by a move p that takes some, and liberties of its chain, up to 8."""
    w, me = row[SIZE] + 1, row[TURN]
    union = np.zeros(sets.shape[1], np.uint64)
    first = second = third = taken = 0
    for q in (p - w, p - 1, p + 1, p + w):
        c, h = row[at(q, COLOUR)], row[at(q, CHAIN)]
        if c == EMPTY:
            union[_word(q)] |= _bit(q)
        elif c == me:
            for word in range(len(union)):
                union[word] |= sets[h, word]
        elif c != WALL and libs[h] == 1 and h != first and h != second and h != third:
            first, second, third = h, first, second
            taken += row[at(h, STONES)]
            r = h
            while True:
                for x in (r - w, r - 1, r + 1, r + w):
                    mine = x == p
                    if row[at(x, COLOUR)] == me:
                        for y in (p - w, p - 1, p + 1, p + w):
                            mine |= row[at(y, COLOUR)] == me and row[at(y, CHAIN)] == row[at(x, CHAIN)]
                    if mine:
                        union[_word(r)] |= _bit(r)
                r = row[at(r, go.NEXT)]
                if r == h:
                    break
    union[_word(p)] &= ~_bit(p)
    free = 0
    for word in range(len(union)):
        free += ones(union[word])
    return taken, min(free, 8)


@jit
def stones_after(row, p):
    """Stones of the chain that playing p makes."""
    w, me = row[SIZE] + 1, row[TURN]
    first = second = third = 0
    stones = 1
    for q in (p - w, p - 1, p + 1, p + w):
        h = row[at(q, CHAIN)]
        if row[at(q, COLOUR)] == me and h != first and h != second and h != third:
            first, second, third = h, first, second
            stones += row[at(h, STONES)]
    return stones
