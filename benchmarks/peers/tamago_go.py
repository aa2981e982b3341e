"""TamaGo's search with its network of 6 blocks of 64 channels: seconds of CPU for some searches, as JSON.

    python tamago_go.py CHECKOUT SIMULATIONS BATCH REPEATS

Runs in the peer's own Python, from the empty 9×9 board; weights are random, which changes no timing.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import time

CHECKOUT = sys.argv[1]
os.environ["OMP_NUM_THREADS"] = "1"
os.sched_setaffinity(0, {next(iter(os.sched_getaffinity(0)))})
sys.path[0] = CHECKOUT  # in place of this folder, whose common.py would hide its package of that name

import torch  # noqa: E402
from board.go_board import GoBoard  # noqa: E402 # pyrefly: ignore
from board.stone import Stone  # noqa: E402 # pyrefly: ignore
from mcts.time_manager import TimeControl, TimeManager  # noqa: E402 # pyrefly: ignore
from mcts.tree import MCTSTree  # noqa: E402 # pyrefly: ignore
from nn.network.dual_net import DualNet  # noqa: E402 # pyrefly: ignore


def main():
    """One search to begin with, then time."""
    simulations, batch, repeats = map(int, sys.argv[2:])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = DualNet(torch.device("cpu"), 9).eval()
    tree, board = MCTSTree(net, batch_size=batch), GoBoard(9, komi=7.0)
    clock = TimeManager(TimeControl.STRICT_PLAYOUT, constant_visits=simulations)

    def search():
        clock.initialize()
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            tree.search_best_move(board, Stone.BLACK, clock, {})
        found = tree.get_root().node_visits
        assert found >= simulations, found

    search()
    begin = time.process_time()
    for _ in range(repeats):
        search()
    seconds = time.process_time() - begin
    commit = subprocess.run(["git", "-C", CHECKOUT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    print(json.dumps({"seconds": seconds, "tamago": commit.stdout.strip(), "tamago_torch": torch.__version__}))


if __name__ == "__main__":
    main()
