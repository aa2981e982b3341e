"""The rules of Go on boards of any size, compiled, one int32 row per game: moves, captures, ko, superko, area scoring.

A row begins with `HEAD` numbers about the game (`SIZE` … `HIGH`). Then come eight numbers for each of the
P = (N+2)(N+1)+1 points of the board with a border of `WALL`, found by `at(p, field)`: point (r, c) is (r+1)(N+1)+c+1,
its neighbours are ±1 and ±(N+1). Last come the empty points in any order, and where in that list each point is.

COLOUR   EMPTY, BLACK, WHITE or WALL
CHAIN    the point that stands for the stone's chain; STONES, LIBS, SUM and SQUARES are kept there
NEXT     the next stone of the chain, in a circle
STONES   how many
LIBS     pseudo-liberties: pairs of a stone of the chain and an empty neighbour; with their SUM and sum of SQUARES a
         chain is in atari, all pairs being one point, just if LIBS·SQUARES = SUM² (Cauchy–Schwarz)
AGE      number of the move that put the stone there

A move is a point, or `PASS`. Suicide is forbidden. Superko compares Zobrist hashes of whole boards, and is asked for
where a move is really played or a node of a tree is made; random games keep to simple ko and a limit of 3N² moves.
"""

import numpy as np

from volition.core.compiled import inline, jit

EMPTY, BLACK, WHITE, WALL = 0, 1, 2, 3
PASS = 0  # a point of the border, which nobody can play
# what a row begins with: side, whose turn, point forbidden by ko, passes in a row, moves played, empty points, stones
# taken so far, last move and the one before, and the hash of the board in two halves
SIZE, TURN, KO, PASSES, MOVES, EMPTIES, TAKEN, LAST, BEFORE, LOW, HIGH = range(11)
HEAD = 16
COLOUR, CHAIN, NEXT, STONES, LIBS, SUM, SQUARES, AGE = range(8)
LARGEST = 25
SIMPLE, POSITIONAL, SITUATIONAL = (
    0,
    1,
    2,
)  # what may not be repeated: the last board; any board; any, with the same turn
ZOBRIST = np.random.default_rng(20160127).integers(
    -(2**31), 2**31, (2, 2, (LARGEST + 2) * (LARGEST + 1) + 1), dtype=np.int32
)  # [half, colour − 1, point]
WHITES_TURN = 0x5DEECE66D1234567  # what a hash is changed by where it is white's turn, under situational superko


@inline
def points(n):
    """P, the points of a board of side n with its border."""
    return (n + 2) * (n + 1) + 1


@inline
def at(p, field):
    """Where in a row the field of point p is; unsigned, which spares a test for indices from the end."""
    return np.uintp(HEAD + 8 * p + field)


@inline
def free_at(row, i):
    """Where in a row the i-th empty point is."""
    return np.uintp(HEAD + 8 * points(row[SIZE]) + i)


@inline
def place_at(row, p):
    """Where in a row it says which of the empty points p is."""
    return np.uintp(HEAD + 9 * points(row[SIZE]) + p)


def row_length(n: int) -> int:
    """Numbers in a row for a board of side n."""
    return HEAD + 10 * ((n + 2) * (n + 1) + 1)


@jit
def copy(row, to):
    """Make `to` the same as row: written out, for numba takes four times as long over `to[:] = row`."""
    for i in range(len(row)):
        to[i] = row[i]


@jit
def clear(row, n):
    """Make the row an empty board of side n, with black to begin."""
    row[:] = 0
    row[SIZE], row[TURN], row[EMPTIES] = n, BLACK, n * n
    for p in range(points(n)):
        row[at(p, COLOUR)] = WALL
    for i in range(n * n):
        p = to_point(n, i)
        row[at(p, COLOUR)], row[free_at(row, i)], row[place_at(row, p)] = EMPTY, p, i


@inline
def to_point(n, action):
    """The point of an action r·N + c, and `PASS` of N²."""
    return PASS if action == n * n else (action // n + 1) * (n + 1) + action % n + 1


@inline
def to_action(n, p):
    """The action of a point."""
    return n * n if p == PASS else (p // (n + 1) - 1) * n + p % (n + 1) - 1


@inline
def in_atari(row, h):
    """Whether the chain that h stands for has one liberty."""
    total = np.int64(row[at(h, SUM)])
    return np.int64(row[at(h, LIBS)]) * np.int64(row[at(h, SQUARES)]) == total * total


@jit
def legal(row, p):
    """Whether the side to move may play p, superko apart."""
    if p == PASS:
        return True
    if row[at(p, COLOUR)] != EMPTY or p == row[KO]:
        return False
    w, me = row[SIZE] + 1, row[TURN]
    for q in (p - w, p - 1, p + 1, p + w):
        if row[at(q, COLOUR)] == EMPTY:
            return True
    for q in (p - w, p - 1, p + 1, p + w):
        c = row[at(q, COLOUR)]
        # a friend with another liberty, or a foe with none
        if c != WALL and (c == me) != in_atari(row, row[at(q, CHAIN)]):
            return True
    return False


@jit
def take(row, h):
    """Take the chain h off the board; the number of its stones."""
    w = row[SIZE] + 1
    whose = row[at(h, COLOUR)] - 1
    p, count = h, 0
    while True:
        row[at(p, COLOUR)] = EMPTY
        row[free_at(row, row[EMPTIES])], row[place_at(row, p)] = p, row[EMPTIES]
        row[EMPTIES] += 1
        row[LOW] ^= ZOBRIST[0, whose, p]
        row[HIGH] ^= ZOBRIST[1, whose, p]
        count += 1
        for q in (p - w, p - 1, p + 1, p + w):
            c = row[at(q, COLOUR)]
            if c == BLACK or c == WHITE:
                g = row[at(q, CHAIN)]  # may be h itself, whose numbers nobody reads again
                row[at(g, LIBS)] += 1
                row[at(g, SUM)] += p
                row[at(g, SQUARES)] += p * p
        p = row[at(p, NEXT)]
        if p == h:
            return count


@jit
def _join(row, g, h):
    """Make the stones of chain g stones of chain h."""
    r = g
    while True:
        row[at(r, CHAIN)] = h
        r = row[at(r, NEXT)]
        if r == g:
            break
    row[at(g, NEXT)], row[at(h, NEXT)] = row[at(h, NEXT)], row[at(g, NEXT)]
    for field in (STONES, LIBS, SUM, SQUARES):
        row[at(h, field)] += row[at(g, field)]


@jit
def play(row, p):
    """Play the legal move p for the side to move; the number of stones it takes."""
    me = row[TURN]
    row[TURN] = 3 - me
    row[MOVES] += 1
    row[KO] = PASS
    row[BEFORE], row[LAST] = row[LAST], p
    if p == PASS:
        row[PASSES] += 1
        return 0
    row[PASSES] = 0
    w = row[SIZE] + 1

    row[EMPTIES] -= 1
    i, last = row[place_at(row, p)], row[free_at(row, row[EMPTIES])]
    row[free_at(row, i)], row[place_at(row, last)] = last, i
    row[at(p, COLOUR)], row[at(p, AGE)] = me, row[MOVES]
    row[LOW] ^= ZOBRIST[0, me - 1, p]
    row[HIGH] ^= ZOBRIST[1, me - 1, p]
    libs = total = squares = friends = foes = 0
    for q in (p - w, p - 1, p + 1, p + w):
        c = row[at(q, COLOUR)]
        if c == EMPTY:
            libs += 1
            total += q
            squares += q * q
        elif c != WALL:
            g = row[at(q, CHAIN)]
            row[at(g, LIBS)] -= 1
            row[at(g, SUM)] -= p
            row[at(g, SQUARES)] -= p * p
            friends += c == me
            foes += c != me
    row[at(p, CHAIN)], row[at(p, NEXT)], row[at(p, STONES)] = p, p, 1
    row[at(p, LIBS)], row[at(p, SUM)], row[at(p, SQUARES)] = libs, total, squares

    h = np.int64(p)
    if friends:
        for q in (p - w, p - 1, p + 1, p + w):
            if row[at(q, COLOUR)] == me and row[at(q, CHAIN)] != h:
                g = np.int64(row[at(q, CHAIN)])
                if row[at(g, STONES)] > row[at(h, STONES)]:
                    g, h = h, g
                _join(row, g, h)
    if not foes:
        return 0
    taken, hole = 0, PASS
    for q in (p - w, p - 1, p + 1, p + w):
        if row[at(q, COLOUR)] == 3 - me and row[at(row[at(q, CHAIN)], LIBS)] == 0:
            taken += take(row, row[at(q, CHAIN)])
            hole = q
    row[TAKEN] += taken
    if taken == 1 and row[at(h, STONES)] == 1 and row[at(h, LIBS)] == 1:
        row[KO] = hole
    return taken


@inline
def _key(low, high, turn, rule):
    key = (np.int64(high) << np.int64(32)) | (np.int64(low) & np.int64(0xFFFFFFFF))
    return key ^ np.int64(WHITES_TURN) if rule == SITUATIONAL and turn == WHITE else key


@jit
def board_key(row, rule):
    """The hash of the board, int64; with the turn in it under situational superko."""
    return _key(row[LOW], row[HIGH], row[TURN], rule)


@jit
def repeats(row, p, history, rule):
    """Whether the legal move p brings back a board of `history`, keys of all boards of the game up to now."""
    if p == PASS or rule == SIMPLE or row[TAKEN] == 0:
        return False  # where nothing was ever taken, all boards before lack a stone at p
    w, me = row[SIZE] + 1, row[TURN]
    low, high = row[LOW] ^ ZOBRIST[0, me - 1, p], row[HIGH] ^ ZOBRIST[1, me - 1, p]
    first = second = third = 0  # chains taken already: the fourth neighbour is not before another
    for q in (p - w, p - 1, p + 1, p + w):
        if row[at(q, COLOUR)] != 3 - me or not in_atari(row, row[at(q, CHAIN)]):
            continue
        h = row[at(q, CHAIN)]
        if h == first or h == second or h == third:
            continue
        first, second, third = h, first, second
        r = h
        while True:
            low ^= ZOBRIST[0, 2 - me, r]
            high ^= ZOBRIST[1, 2 - me, r]
            r = row[at(r, NEXT)]
            if r == h:
                break
    key = _key(low, high, 3 - me, rule)
    for i in range(len(history) - 1, -1, -1):
        if history[i] == key:
            return True
    return False


@jit
def legal_mask(row, history, rule, mask):
    """mask `[N²+1]`: which actions are legal; passing always is."""
    n = row[SIZE]
    mask[n * n] = True
    for r in range(n):
        for c in range(n):
            p = (r + 1) * (n + 1) + c + 1
            mask[r * n + c] = legal(row, p) and not repeats(row, p, history, rule)


@jit
def own_eye(row, p, me):
    """Whether the empty point p is an eye of `me` that it would be foolish to fill.

    All neighbours are its own, and of the diagonal points the other side holds at most one, at the border none.
    """
    w = row[SIZE] + 1
    for q in (p - w, p - 1, p + 1, p + w):
        c = row[at(q, COLOUR)]
        if c != me and c != WALL:
            return False
    foes = walls = 0
    for q in (p - w - 1, p - w + 1, p + w - 1, p + w + 1):
        c = row[at(q, COLOUR)]
        foes += c == 3 - me
        walls += c == WALL
    return foes + (walls > 0) < 2


@inline
def next_random(state):
    """32 random bits; state uint64 `[1]` is not 0 (xorshift64*, Vigna 2016)."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return np.int64((x * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(32))


@jit
def random_move(row, random):
    """A legal move that fills no own eye, all with the same chance; `PASS` if there is none."""
    me, left = row[TURN], np.int64(row[EMPTIES])
    while left > 0:
        i = (next_random(random) * left) >> np.int64(32)
        p = row[free_at(row, i)]
        if legal(row, p) and not own_eye(row, p, me):
            return p
        left -= 1  # among those before `left` p is not looked at again
        last = row[free_at(row, left)]
        row[free_at(row, left)], row[free_at(row, i)] = p, last
        row[place_at(row, p)], row[place_at(row, last)] = left, i
    return PASS


@jit
def random_game(row, random, limit):
    """Play at random until both sides have passed, or `limit` moves are played."""
    while row[PASSES] < 2 and row[MOVES] < limit:
        play(row, random_move(row, random))


@jit
def area(row, owner):
    """Points of black less points of white: stones, and empty regions that touch only one side (Tromp–Taylor).

    owner int8 `[P]` becomes `BLACK`, `WHITE` or `EMPTY` at each point of the board, `WALL` outside.
    """
    n = row[SIZE]
    w = n + 1
    score = 0
    for p in range(points(n)):
        c = row[at(p, COLOUR)]
        owner[p] = WALL if c == EMPTY else c
        if c == BLACK or c == WHITE:
            score += 3 - 2 * c
    stack = np.empty(row[EMPTIES], np.int32)
    for i in range(row[EMPTIES]):
        start = row[free_at(row, i)]
        if owner[start] != WALL:
            continue
        stack[0], count, seen, touched = start, 1, 0, 0
        owner[start] = EMPTY
        while seen < count:
            p = stack[seen]
            seen += 1
            for q in (p - w, p - 1, p + 1, p + w):
                c = row[at(q, COLOUR)]
                if c == EMPTY:
                    if owner[q] == WALL:
                        owner[q] = EMPTY
                        stack[count] = q
                        count += 1
                elif c != WALL:
                    touched |= c
        if touched == BLACK or touched == WHITE:
            for j in range(count):
                owner[stack[j]] = touched
            score += (3 - 2 * touched) * count
    return score


@jit
def liberties(row, p, enough):
    """Liberties of the chain of the stone p, counted up to `enough`."""
    w = row[SIZE] + 1
    found = np.empty(enough, np.int32)
    count, r = 0, p
    while True:
        for q in (r - w, r - 1, r + 1, r + w):
            if row[at(q, COLOUR)] == EMPTY:
                known = False
                for i in range(count):
                    known |= found[i] == q
                if not known:
                    found[count] = q
                    count += 1
                    if count == enough:
                        return count
        r = row[at(r, NEXT)]
        if r == p:
            return count
