"""OpenSpiel's Go, for go_speed.py: `playouts SIZE COUNT` or `uct SIZE SIMULATIONS`; prints CPU-seconds and moves."""

import json
import random
import sys
import time

import pyspiel  # pyrefly: ignore[missing-import]

what, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
game = pyspiel.load_game(f"go(board_size={size},komi=7.5)")
moves = 0
if what == "playouts":
    begin = time.process_time()
    for _ in range(count):
        state = game.new_initial_state()
        while not state.is_terminal():
            actions = state.legal_actions()
            state.apply_action(actions[int(random.random() * len(actions))])
            moves += 1
else:
    evaluator = pyspiel.RandomRolloutEvaluator(1, 1)
    # exploration 2, as in OpenSpiel's examples; memory without a limit, no solver, no output
    bot = pyspiel.MCTSBot(game, evaluator, 2.0, count, 0, False, 1, False)
    state = game.new_initial_state()
    begin = time.process_time()
    bot.mcts_search(state)
print(json.dumps({"seconds": time.process_time() - begin, "moves": moves}))
