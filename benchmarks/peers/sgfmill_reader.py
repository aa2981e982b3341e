"""sgfmill's reader, for sgf_speed.py: reads a JSON list of games, prints CPU-seconds and the points of all moves."""

import json
import sys
import time

from sgfmill import sgf  # pyrefly: ignore[missing-import]

with open(sys.argv[1], encoding="utf-8") as file:
    texts = [text.encode() for text in json.load(file)]
begin = time.process_time()
games = []
for text in texts:
    game = sgf.Sgf_game.from_bytes(text)
    games.append((game.get_size(), [node.get_move() for node in game.get_main_sequence()]))
seconds = time.process_time() - begin
points = [
    [size * size if at is None else (size - 1 - at[0]) * size + at[1] for colour, at in moves if colour]
    for size, moves in games
]
print(json.dumps({"seconds": seconds, "points": points}))
