"""`volition play`: people and programs play against what was trained."""

import sys
from pathlib import Path

from volition.errors import VolitionError
from volition.terminal import Parser


def play(words: list[str]) -> None:
    """A GTP engine on standard input and output."""
    parser = Parser(
        "play",
        "Play Go by the Go Text Protocol (GTP 2) on standard input and output: the engine that GoGui, Sabaki and\n"
        "referees ask for. With --run it searches with a trained network, else with random games (UCT), on boards of\n"
        "any size.",
        "volition play go --gtp --run runs/alphago-laptop-0 --seconds 1",
    )
    parser.add_argument("game", choices=["go"], help="what to play")
    parser.add_argument("--gtp", action="store_true", help="speak GTP (there is no other way yet)")
    parser.add_argument("--run", metavar="DIR", type=Path, help="run folder of alphago")
    parser.add_argument("--seconds", type=float, default=3.0, help="most seconds a move (default 3)")
    parser.add_argument("--size", type=int, default=9, help="of the board at the start (default 9)")
    parser.add_argument("--komi", type=float, default=7.0, help="at the start (default 7)")
    parser.add_argument("--seed", type=int, default=0, help="of its random numbers")
    args = parser.parse_args(words)
    if not args.gtp:
        raise VolitionError("volition play go speaks GTP only: add --gtp, or open it in GoGui or Sabaki")
    if args.seconds <= 0:
        raise VolitionError(f"--seconds {args.seconds:g}: it must be more than 0")
    from volition.applications._go_player import Player
    from volition.envs.go_game import Go
    from volition.gtp import Engine

    rules = Go(args.size, args.komi)
    if args.run is None:
        engine = Engine(Player(rules, seconds=args.seconds, seed=args.seed))
    else:
        from volition.applications import alphago
        from volition.applications._go_net import Judge, frozen
        from volition.run import Run

        run = Run.open(args.run, alphago.Config)
        if run.recipe != "alphago":
            raise VolitionError(f"{args.run} is a run of {run.recipe}, not of alphago")
        if run.config.size != args.size:
            raise VolitionError(f"the network of {args.run} is for boards of {run.config.size}, not {args.size}")
        judge = Judge(frozen(alphago.trained(run), run.config.bf16), args.size, args.seed)
        engine = Engine(Player(rules, judge, seconds=args.seconds, seed=args.seed), {args.size})
    engine.warm()
    engine.serve(sys.stdin, sys.stdout)
