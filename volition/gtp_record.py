"""A player's game as an SGF record, and records as its game."""

from pathlib import Path

import numpy as np

from volition.applications._go_player import Player
from volition.data import sgf
from volition.data.go_record import Record
from volition.envs import go
from volition.envs.go_game import Go
from volition.errors import VolitionError


def result(score: float) -> str:
    """Black's points less white's as a result: B+3.5, W+0.5, 0."""
    return "0" if score == 0 else f"{'B' if score > 0 else 'W'}+{abs(score):g}"


def text(player: Player) -> str:
    """The game so far as SGF, with its result once it is over."""
    black, white, turn = player.laid or ((), (), go.BLACK)
    record = Record(
        player.rules.size,
        np.array([action for _, action in player.played], np.int16),
        np.array([1 if colour == go.BLACK else -1 for colour, _ in player.played], np.int8),
        player.rules.komi,
        result=result(player.count()) if player.rules.over(player.positions)[0] else "",
        handicap=len(black) if len(black) > 1 and not white else 0,
        setup=(tuple(black), tuple(white)),
        player=0 if player.laid is None else 1 if turn == go.BLACK else -1,
    )
    return sgf.write(record)


def load(player: Player, path: Path, sizes: set[int], most: int | None = None) -> None:
    """Play the first `most` moves of a game on one of these boards; the player stays as it was where that cannot be."""
    try:
        game = sgf.parse(sgf.decode(path.read_bytes()))
    except (OSError, VolitionError) as error:
        raise VolitionError(f"cannot load file: {error.strerror if isinstance(error, OSError) else error}") from None
    if game.size not in sizes:
        known = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
        raise VolitionError(f"cannot load file: its board is {game.size}, this player's {known}")
    rules, laid, played = player.rules, player.laid, player.played
    player.clear(Go(game.size, rules.komi if game.komi is None else game.komi, rules.ko))
    where = "its stones"
    try:
        if any(game.setup):
            player.lay(*game.setup, go.BLACK if game.first == 1 else go.WHITE)
        for i in range(len(game.moves[:most])):
            where = f"move {i + 1}"
            player.play(go.BLACK if game.colours[i] == 1 else go.WHITE, int(game.moves[i]))
    except VolitionError as error:
        player.laid = laid
        player.replay(rules, played)
        raise VolitionError(f"cannot load file: {where}: {error}") from None
