"""OpenSpiel's Go, for go_equal.py: plays the games of a file again, and counts what differs from what is noted."""

import json
import sys
from importlib import metadata

import numpy as np
import pyspiel  # pyrefly: ignore[missing-import]

COUNTED, REPEATED = 1, 2
noted = np.load(sys.argv[1])
size, limit = int(noted["size"]), int(noted["limit"])
points = size * size
actions, boards, ended, scores = noted["actions"], noted["boards"], noted["ended"], noted["score"]
legal, superko = (np.unpackbits(noted[name], axis=2)[:, :, : points + 1].astype(bool) for name in ("legal", "superko"))
found = dict.fromkeys(
    (
        "positions", "legal_moves", "superko_moves", "repetitions", "counted", "different_legal", "different_boards",
        "different_superko", "different_ends", "different_scores",
    ),
    0,
)  # fmt: skip


def load(komi: float) -> pyspiel.Game:
    """The game with as many moves as ours."""
    return pyspiel.load_game(f"go(board_size={size},komi={komi},max_game_length={limit})")


def drawn_by_repetition(state: pyspiel.State) -> bool:
    """Whether a board has come back: over, and nobody has won in spite of a komi that allows no draw."""
    return state.is_terminal() and state.returns()[0] == 0


known = {}
game = load(0.5)
for k in range(actions.shape[1]):
    state, moves = game.new_initial_state(), actions[actions[:, k] >= 0, k].tolist()
    for t, action in enumerate(moves):
        found["positions"] += 1
        if state.is_terminal():
            found["different_ends"] += 1
            break
        there = np.array(state.observation_tensor(0)[: 2 * points]).reshape(2, points)  # black's stones, white's
        found["different_boards"] += bool((there[0] + 2 * there[1] != boards[t, k]).any())
        theirs, ours = state.legal_actions(), np.flatnonzero(legal[t, k]).tolist()
        found["legal_moves"] += len(ours)
        found["different_legal"] += theirs != ours
        for a in np.flatnonzero(superko[t, k]).tolist():
            found["superko_moves"] += 1
            found["different_superko"] += not drawn_by_repetition(state.child(a))
        state.apply_action(action)
        repeated = t == len(moves) - 1 and ended[k] == REPEATED
        found["different_superko"] += drawn_by_repetition(state) != bool(repeated)
    found["different_ends"] += not state.is_terminal()
    if ended[k] == REPEATED:
        found["repetitions"] += 1
        continue
    found["counted"] += 1
    score = int(scores[k])
    for komi, winner in ((score - 0.5, 1), (score + 0.5, -1)):  # black wins the one and loses the other
        if komi not in known:
            known[komi] = load(komi)
        again = known[komi].new_initial_state()
        for action in moves:
            again.apply_action(action)
        found["different_scores"] += not again.is_terminal() or again.returns()[0] != winner
print(json.dumps(found | {"openspiel": metadata.version("open_spiel")}))
