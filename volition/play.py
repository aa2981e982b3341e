"""`volition play` and `volition serve`: people and programs play against what was trained."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from volition.errors import VolitionError
from volition.terminal import Parser

if TYPE_CHECKING:
    from volition.applications._go_player import Player
    from volition.envs.go_game import Go


def player(
    run: Path | None, rules: "Go", seconds: float, seed: int, uct: bool = False, rollouts: bool = False
) -> "Player":
    """Who plays with the network of a run, whose board must be that of the rules.

    Without a run it is the network for 9×9 that comes with the package, with UCT on other boards, or all by UCT. With
    rollouts a position's value is half the network's, half a game's by the run's rollout policy.
    """
    from volition.applications._go_player import Player

    if rollouts and run is None:
        raise VolitionError("--rollouts needs --run: the network that comes with the package has no rollout policy")
    if uct:
        return Player(rules, seconds=seconds, seed=seed)
    from volition.applications import alphago
    from volition.applications._go_net import Judge, frozen, shipped
    from volition.core.search import Search
    from volition.envs.go_rollout import PolicyGames
    from volition.run import Run

    if run is None:
        net, settings = shipped()
        judge = Judge(frozen(net), settings["size"], seed)
        return Player(rules, judge, seconds=seconds, seed=seed, only=settings["size"])

    opened = Run.open(run, alphago.Config)
    if opened.recipe != "alphago":
        raise VolitionError(f"{run} is a run of {opened.recipe}, not of alphago")
    if opened.config.size != rules.size:
        raise VolitionError(f"the network of {run} is for boards of {opened.config.size}, not {rules.size}")
    judge = Judge(frozen(alphago.trained(opened), opened.config.bf16), rules.size, seed)
    if not rollouts:
        return Player(rules, judge, seconds=seconds, seed=seed)
    policy = alphago.rollout_policy(opened)
    search = Search(simulations=1_000_000, nodes=60_000, lam=0.5, ahead=1)
    return Player(rules, judge, lambda rules: PolicyGames(rules, policy, seed), search, seconds, seed)


def _parser(command: str, what: str, example: str) -> Parser:
    """What both commands ask for."""
    parser = Parser(command, what, example)
    network = parser.add_mutually_exclusive_group()
    network.add_argument("--run", metavar="DIR", type=Path, help="run folder of alphago (default: a network for 9×9)")
    network.add_argument("--uct", action="store_true", help="no network: random games")
    parser.add_argument("--rollouts", action="store_true", help="also play games by the run's rollout policy (λ ½)")
    parser.add_argument("--seconds", type=float, default=3.0, help="most seconds a move (default 3)")
    parser.add_argument("--size", type=int, help="of the board at the start (default 9, or the network's)")
    parser.add_argument("--komi", type=float, default=7.0, help="at the start (default 7)")
    parser.add_argument("--seed", type=int, default=0, help="of its random numbers")
    return parser


def play(words: list[str]) -> None:
    """A GTP engine on standard input and output."""
    parser = _parser(
        "play",
        "Play Go by the Go Text Protocol (GTP 2) on standard input and output: the engine that GoGui, Sabaki and\n"
        "referees ask for. It searches with the network of a run, or on 9×9 with one that comes with the package; on\n"
        "other boards, or with --uct, by random games.",
        "volition play go --gtp --run runs/alphago-laptop-0 --seconds 1",
    )
    parser.add_argument("game", choices=["go"], help="what to play")
    parser.add_argument("--gtp", action="store_true", help="speak GTP (volition serve is a board in the browser)")
    args = parser.parse_args(words)
    if not args.gtp:
        raise VolitionError("volition play go speaks GTP only: add --gtp, or play in a browser with volition serve")
    if args.seconds <= 0:
        raise VolitionError(f"--seconds {args.seconds:g}: it must be more than 0")
    from volition.gtp import Engine

    made = player(args.run, _rules(args), args.seconds, args.seed, args.uct, args.rollouts)
    engine = Engine(made) if args.run is None else Engine(made, {made.rules.size})
    engine.warm()
    engine.serve(sys.stdin, sys.stdout)


def serve(words: list[str]) -> None:
    """A board in the browser."""
    parser = _parser(
        "serve",
        "Play Go in a browser until Ctrl-C, against the network of a run, or on 9×9 one that comes with the package;\n"
        "on other boards, or with --uct, random games play. What it thinks is drawn on the board. Without --host only\n"
        "this machine can reach it. There are no accounts: whoever reaches the page can let it think.",
        "volition serve --run runs/alphago-laptop-0 --seconds 1",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port (8000)")
    args = parser.parse_args(words)
    try:
        from volition.web.board import create
        from volition.web.game import MOST_KOMI
        from volition.web.listen import listen
        from volition.web.opponent import LONGEST, Opponent
    except ModuleNotFoundError as error:
        raise VolitionError(f"the board needs {error.name}: pip install 'volition[go,web]'") from None
    from volition.envs import go

    if not 0 < args.seconds <= LONGEST:
        raise VolitionError(f"--seconds {args.seconds:g}: it must be more than 0 and at most {LONGEST:g}")
    if not abs(args.komi) <= MOST_KOMI:
        raise VolitionError(f"--komi {args.komi:g}: it must be from -{MOST_KOMI:g} to {MOST_KOMI:g}")
    made = player(args.run, _rules(args), args.seconds, args.seed, args.uct, args.rollouts)
    sizes = set(range(2, go.LARGEST + 1)) if args.run is None else {made.rules.size}
    name = "UCT" if args.uct else "Volition" if args.run is None else args.run.resolve().name
    opponent = Opponent(made, sizes, args.seconds, name)
    opponent.warm()
    listen(create(opponent), args.host, args.port, "board")


def _rules(args: Namespace) -> "Go":
    """The rules at the start; without a size on the board that the run was trained on, else on 9×9."""
    from volition.envs.go_game import Go
    from volition.folder import read_config

    size = args.size
    if size is None:
        size = read_config(args.run)["config"].get("size", 9) if args.run else 9
    return Go(size, args.komi)
