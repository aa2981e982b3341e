"""AlphaGo's stages: the pool, the gradient of self-play, and that a value network learns who wins."""

import io
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from volition.applications import alphago
from volition.applications._actors import actors, seeds
from volition.applications._go_lessons import OwnGames, experts, value_error
from volition.applications._go_lots import Table, both, duels, first_moves, relays, won_by_first
from volition.applications._go_net import Judge, Pool, frozen, make_net
from volition.applications._go_training import begin, slow, squared_error
from volition.cli import main
from volition.data import catalog
from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_selfplay import any_move, play_games
from volition.errors import VolitionError
from volition.play import player
from volition.run import Run
from volition.stage import Stage

TINY = alphago.VARIANTS["tiny"]


def test_the_pool_keeps_what_the_weights_were() -> None:
    net = make_net(5, 1, 4)
    pool, first = Pool(net), {name: w.clone() for name, w in net.state_dict().items()}
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    pool.add(net)
    again = Pool(net)
    again.load_state_dict(pool.state_dict())
    for kept in (pool.weights, again.weights):
        assert all(torch.equal(kept[0][name], first[name]) for name in first)
        assert all(torch.equal(kept[1][name], w) for name, w in net.state_dict().items())
    drawn = [pool.draw(np.random.default_rng(seed)) is pool.weights[0] for seed in range(100)]
    assert 30 < sum(drawn) < 70


def test_half_of_self_play_is_with_either_colour() -> None:
    # with komi −100 black wins every game: the learner half of them, its own and the pool's moves as likely
    config = replace(TINY, komi=-100.0, reinforce=replace(TINY.reinforce, updates=2, games=8))
    run = Run(seed=0, log_every=1)
    with run:
        alphago.reinforce(config, Stage(run, "reinforce", 0), make_net(**config.net))
    assert [row["reinforce_won"] for row in run.history] == [50.0, 50.0]


def test_lots_are_the_same_games_in_another_process() -> None:
    table = Table(Go(5, 0.5), TINY.net, False, "cpu", 6)
    torch.manual_seed(0)
    weights, numbers = both(make_net(**TINY.net), make_net(**TINY.net)), seeds(np.random.default_rng(0), 3)
    assert len(set(numbers)) == 3
    found = []
    for workers in (0, 1):
        with actors(partial(duels, table, 1.0), workers) as play:
            found.append(play(weights, numbers))
    for here, there in zip(*found, strict=True):
        np.testing.assert_array_equal(here.moves, there.moves)
        np.testing.assert_array_equal(here.winner, there.winner)
    assert not np.array_equal(found[0][0].key, found[0][1].key)
    for games in found[0]:
        mine = first_moves(games, table.rules)
        assert (mine.ply % 2 == mine.game % 2).all() and set(mine.game) == set(range(6))
    won = replace(found[0][0], winner=np.array([1, 1, -1, -1, 1, 0], np.int8))
    assert won_by_first(won) == pytest.approx(100 * 3.5 / 6)  # games 0, 3, 4, and half of the last


def test_relays_change_over_after_a_random_move() -> None:
    table = Table(Go(5, 0.5), TINY.net, False, "cpu", 40)
    net = make_net(**TINY.net)
    games, ply = relays(table, 4, both(net, net), 7)
    assert len(games) == 40 and set(ply) == {1, 2, 3, 4}
    again, _ = relays(table, 4, both(net, net), 7)
    np.testing.assert_array_equal(games.moves, again.moves)


def test_the_gradient_of_self_play_is_that_of_all_its_parts() -> None:
    config, net = replace(TINY, bf16=False), make_net(**TINY.net).eval()  # no statistics of batches
    table = Table(Go(5, 0.5), TINY.net, False, "cpu", 8)
    moves = first_moves(duels(table, 1.0, both(net, net), 0), table.rules)
    sums, gradients = [], []
    for split in (1, 2):
        net.zero_grad()
        rng = Fixed()
        parts = [moves.take(part) for part in np.array_split(np.arange(len(moves)), split)]
        sums.append(torch.stack([alphago.backward(config, net, part, rng) for part in parts]).sum(0))
        gradients.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-4, atol=0.0)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


class Fixed:
    """Turns no board."""

    def integers(self, high: int, size: int) -> np.ndarray:
        return np.zeros(size, np.int64)


def test_what_reads_pooled_relus_learns_slowly() -> None:
    net, optimizer = begin(make_net(9, 1, 8, 0), Stage(Run(), "supervised", 0), 0.0)
    slow(optimizer, 50, 0.1, 100, warm_up=1)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rate) == sum(len(group["params"]) for group in optimizer.param_groups)  # each once
    for name, parameter in net.named_parameters():
        assert rate[id(parameter)] == pytest.approx(0.05 / 8 if name.startswith("pooled.") else 0.05)


def test_unknown_winners_do_not_count() -> None:
    value = torch.tensor([0.5, -1.0, 0.0])
    assert squared_error(value, torch.tensor([1.0, torch.nan, -1.0])).item() == pytest.approx((0.25 + 1.0) / 2)
    assert squared_error(value, torch.full((3,), torch.nan)).item() == 0.0


def test_a_value_network_learns_who_has_more_stones() -> None:
    config = replace(TINY, value=replace(TINY.value, updates=150, batch=64, lr=5e-3, policy=0.0))
    own = OwnGames(config.rules)
    rng = np.random.default_rng(0)
    for _ in range(4):
        games = play_games(config.rules, [any_move], np.zeros((200, config.rules.moves), int), rng)
        own.add(games, np.full(200, 20))
    learn, test = own.positions(0.25)
    torch.manual_seed(0)
    sigma, memory = make_net(**config.net), Run(seed=0)
    with memory:
        net = alphago.learn_value(config, Stage(memory, "value", 0), sigma, None, learn)
    judge = Judge(frozen(net), 5, seed=None)
    error = value_error(judge(test.positions(np.arange(len(test)))[0])[1], test.outcome(np.arange(len(test))))
    assert error["value_mse"] < 0.95 * error["value_mse_constant"]


def test_the_papers_networks() -> None:
    paper = alphago.VARIANTS["paper"]
    assert (paper.net["layers"], paper.net["channels"], paper.size) == (13, 192, 19)
    net = make_net(9, 1, 8, layers=4)
    logits, value = net(torch.zeros(2, 49, 9, 9))
    assert logits.shape == (2, 82) and value.shape == (2,) and (logits[:, 81] < logits[:, :81].min(1).values).all()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"reinforce": replace(TINY.reinforce, games=7)}, "reinforce.games is 7"),
        ({"value": replace(TINY.value, latest=0.0)}, "value.latest"),
        ({"layers": 2}, "layers is 2"),
        ({"held": 0.6}, "held is 0.6"),
        ({"rollout": replace(TINY.rollout, positions=0)}, "rollout.positions is 0"),
        ({"reinforce": replace(TINY.reinforce, games=100)}, "reinforce.games is 100; .* a multiple"),
        ({"workers": -1}, "workers is -1"),
        ({"stages": 0}, "stages is 0; it must be 1 to 5"),
        ({"stages": 6}, "stages is 6"),
    ],
)
def test_settings_that_cannot_be(change, what: str) -> None:
    with pytest.raises(VolitionError, match=what):
        replace(TINY, **change)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_a_run_ends_after_some_stages(
    stages: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = tmp_path / "run", []
    assert main(["train", "alphago:tiny", "--stages", str(stages), "--quiet", "--run", str(folder)]) == 0

    def opened() -> Run:
        return Run.open(folder, alphago.Config)

    weights = [alphago.trained(opened(), stage).state_dict() for stage in ("", "supervised")]
    assert all(torch.equal(weights[0][name], w) for name, w in weights[1].items())  # the one with a value
    for stage in alphago.STAGES[stages:]:
        with pytest.raises(VolitionError, match=f"no {stage}: it ends with stage {stages}, see --stages"):
            alphago.trained(opened(), stage)
    run = opened()
    found = alphago.evaluate(run.config, run)
    assert run.step == [20, 22, 26, 28][stages - 1]
    assert ("top1_rollout" in found, "reinforce_won" in found) == (stages >= 2, stages >= 3)
    assert "top1" in found and "top1_final" not in found
    command = ["play", "go", "--gtp", "--seconds", "0.01", "--run", str(folder)]
    for words in ([], ["--rollouts"]):
        monkeypatch.setattr("sys.stdin", io.StringIO("quit\n"))
        said.append(main([*command, *words]))
    assert said == [0, 0 if stages >= 2 else 2] and ("no rollout" in capsys.readouterr().err) == (stages < 2)


def test_games_of_the_data_folder_are_found_by_the_boards_size(tmp_path: Path) -> None:
    rng, run = np.random.default_rng(0), Run(seed=0, data=tmp_path)
    names = [file.name for entry in catalog.CATALOG if entry.name == "kgs19" for file in entry.files]
    for k, name in enumerate(names):
        path = tmp_path / "sgf/19x19/kgs_6d" / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        points = [
            f";{'BW'[i % 2]}[{chr(97 + p // 19)}{chr(97 + p % 19)}]" for i, p in enumerate(rng.permutation(361)[:20])
        ]
        text = f"(;GM[1]SZ[19]BR[6d]WR[7d]RE[B+R]{''.join(points)})".encode()
        with tarfile.open(path, "w:gz") as packed:
            info = tarfile.TarInfo(f"{k}.sgf")
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text))
    games, rank = experts("", Go(19, 7.5), 1, 4, 4, run)
    assert (len(games), rank, run.dataset) == (4, 1, "kgs19") and len(games.sources) == 4
    games, rank = experts("", Go(9, 7.0), 1, 4, 4, run)
    assert (len(games), rank, run.dataset) == (4, -99, "games of UCT")
    with pytest.raises(VolitionError, match="is not there"):
        experts(str(tmp_path / "nothing.sgf"), Go(19, 7.5), 1, 4, 4, run)


def test_a_run_is_played_against(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert main(["train", "alphago:tiny", "--quiet", "--run", str(folder)]) == 0
    plain, mixed = (player(folder, Go(5, 0.5), 60.0, 0, rollouts=rollouts) for rollouts in (False, True))
    mixed.clear(Go(5, 30.0))
    games = mixed.rollout
    assert plain.rollout is None and games is not None and (games(Go(5, 30.0).start(9)) == -1).all()  # its own komi
    asked = []
    mixed.rollout = lambda positions: asked.append(len(positions.rows)) or games(positions)
    for one in (plain, mixed):
        one.search = replace(one.search, simulations=40, nodes=200)
        action = one.choose(go.BLACK)
        assert action is None or one.legal(go.BLACK)[action]
    assert 20 < sum(asked) <= 40
    monkeypatch.setattr("sys.stdin", io.StringIO("showboard\nquit\n"))  # the board is the network's
    assert main(["play", "go", "--gtp", "--seconds", "0.01", "--run", str(folder)]) == 0
    assert "E" in (board := capsys.readouterr().out) and "F" not in board
    for words in (["--rollouts"], ["--rollouts", "--uct"], ["--size", "7", "--run", str(folder)]):
        assert main(["play", "go", "--gtp", *words]) == 2
    assert "rollout policy" in (said := capsys.readouterr().err) and "boards of 5" in said
