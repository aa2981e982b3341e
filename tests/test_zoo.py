"""The zoo: recipes read without importing them, and tables that never flatter."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TOY  # pyrefly: ignore

from volition import zoo
from volition.errors import VolitionError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    return folder


def refused(match: str):
    return pytest.raises(VolitionError, match=match)


def test_a_file_is_all_it_takes(own: Path) -> None:
    before = {recipe.name for recipe in zoo.recipes()}
    assert {recipe.name for recipe in zoo.recipes(own)} == before | {"toy"}
    toy, variant = zoo.resolve("toy", own)
    assert (toy.summary, toy.variants, toy.chapter, variant) == (
        "A toy: fits a line while drawing from every random state there is.",
        ("tiny", "laptop"),
        "own",
        "laptop",
    )
    assert toy.paper and toy.paper["rows"] == {"tiny": 12.5}
    assert toy.load().Config().updates == 60 and toy.load() is toy.load()


def test_names_of_recipes_are_unique_and_each_has_what_it_needs() -> None:
    found = zoo.recipes()
    assert len({recipe.name for recipe in found}) == len(found)
    for recipe in found:
        assert "tiny" in recipe.variants and recipe.summary, recipe.name
        module = recipe.load()
        assert tuple(module.VARIANTS) == recipe.variants
        assert all(hasattr(module, name) for name in ("Config", "train", "evaluate", "watch")), recipe.name
        assert getattr(module, "PAPER", None) == recipe.paper
        if recipe.paper:
            assert set(recipe.paper) == {"metric", "unit", "better", "baselines", "data", "source", "rows"}
            assert set(recipe.paper["rows"]) <= set(recipe.variants)


def test_what_is_not_a_recipe_is_passed_over(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = zoo.recipes(own)
    (own / "_shared.py").write_text("VARIANTS = {'a': 1}")
    (own / "other.py").write_text("x = 1")
    (own / "computed.py").write_text("VARIANTS = make()")
    assert zoo.recipes(own) == before
    (own / "broken.py").write_text("VARIANTS = {")
    (own / "bytes.py").write_bytes(b"VARIANTS = {}\0\xff")
    assert zoo.recipes(own) == before
    said = capsys.readouterr().err
    assert "broken.py is passed over" in said and "bytes.py is passed over" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tyo", "no recipe 'tyo'; did you mean 'toy'?"),
        ("quite_else", "no recipe 'quite_else'; volition list shows them all"),
        ("toy:tinny", "no variant 'tinny' of toy; did you mean 'tiny'?"),
        ("toy:x", "no variant 'x' of toy; toy has tiny, laptop"),
        ("toy:", "no variant '' of toy; toy has tiny, laptop"),
    ],
)
def test_the_nearest_name_is_proposed(own: Path, text: str, message: str) -> None:
    with pytest.raises(VolitionError) as error:
        zoo.resolve(text, own)
    assert str(error.value) == message


def line(error: float, **changes: Any) -> dict[str, Any]:
    base = {
        "recipe": "toy", "variant": "tiny", "changed": {}, "seed": 0, "data": "Lines", "trained_on": "Lines",
        "updates": 60, "finished": True, "metrics": {"error": error, "chance": 90.0},
        "cpu_seconds": 100.0, "time": "1",
    }  # fmt: skip
    return base | changes


def test_mean_and_deviation_over_seeds(own: Path) -> None:
    # the third replaces the first, which has the same seed
    lines = [line(9.0), line(4.0, seed=1, cpu_seconds=300.0), line(2.0)]
    (row,) = zoo.table(lines, own=own)
    # mean of 2 and 4: 3; sample standard deviation √((1 + 1)/1) = 1.414; mean of 100 s and 300 s: 200 s
    cells = ("toy:tiny", "Lines", "12.5 %", "error 3 ± 1.4 %", "", "chance 90 ± 0", "2", "60", "3 min")
    assert row == cells


def test_interquartile_mean_from_three_seeds_on(own: Path) -> None:
    found = [zoo.table([line(e, seed=i) for i, e in enumerate(errors)], own=own)[0][4] for errors in (
        [1.0, 2.0], [4.0, 4.0, 4.0], [0.0, 2.0, 3.0, 10.0, 100.0],
    )]  # fmt: skip
    assert found[:2] == ["", "4 [4, 4]"]
    mean, low, high = found[2].replace("[", "").replace("]", "").replace(",", "").split()
    assert mean == "5"  # (2 + 3 + 10)/3: one of five goes at either end
    assert 0 <= float(low) < 2 and 10 < float(high) <= 100


def test_groups_keep_the_later_of_one_seed() -> None:
    lines = [line(9.0), line(4.0, seed=1), line(2.0), line(1.0, changed={"lr": 1})]
    found = [[result["metrics"]["error"] for result in group] for group in zoo.groups(lines)]
    assert found == [[2.0, 4.0], [1.0]]


def test_whole_runs_share_a_row_and_a_half_one_does_not(own: Path) -> None:
    lines = [line(1.0), line(3.0, seed=1, updates=1440), line(9.0, seed=2, updates=30, finished=False)]
    rows = zoo.table(lines, own=own)
    assert {(row[3], row[7]) for row in rows} == {("error 2 ± 1.4 %", "60–1,440"), ("error 9 %", "30 so far")}


def test_runs_that_began_from_another_of_the_same_seed_share_a_row(own: Path) -> None:
    began = [line(e, seed=seed, changed={"model": f"runs/a-{folder}/model"}) for e, seed, folder in (
        (1.0, 0, 0), (3.0, 1, 1), (9.0, 2, 1),
    )]  # fmt: skip
    rows = {row[0]: row[3] for row in zoo.table(began, own=own)}
    assert rows == {
        "toy:tiny (model=runs/a-SEED/model)": "error 2 ± 1.4 %", "toy:tiny (model=runs/a-1/model)": "error 9 %",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "label", "data"),
    [
        ({"data": "built-in", "trained_on": "built-in"}, "toy:tiny", "built-in"),
        ({"trained_on": "built-in"}, "toy:tiny", "Lines (trained on built-in)"),
        ({"data": "built-in"}, "toy:tiny", "built-in (trained on Lines)"),
        ({"changed": {"lr": 0.1}}, "toy:tiny (lr=0.1)", "Lines"),
        ({"variant": "laptop"}, "toy:laptop", "Lines"),
    ],
)
def test_the_papers_figure_stands_only_beside_its_own_data(
    own: Path, changes: dict[str, Any], label: str, data: str
) -> None:
    rows = zoo.table([line(1.0, **changes), line(2.0, seed=1)], own=own)
    assert sorted(row[2] for row in rows) == ["", "12.5 %"]  # never mixed into one row either
    (row,) = [row for row in rows if not row[2]]
    assert row[:2] == (label, data)


def test_markdown(own: Path) -> None:
    text = zoo.markdown(zoo.table([line(1.0)], own=own)).splitlines()
    assert text[0].startswith("| recipe:variant | data | paper | ours |") and set(text[1]) == set("| -")
    assert text[2] == "| toy:tiny | Lines | 12.5 % | error 1 % |  | chance 90 | 1 | 60 | 100 s |"


def test_only_one_recipe_and_unknown_ones(own: Path) -> None:
    lines = [line(1.0), line(1.0, recipe="gone", metrics={"score": [1.0, 2.0]})]
    assert [row[0] for row in zoo.table(lines, own=own)] == ["toy:tiny", "gone:tiny"]
    assert [row[3] for row in zoo.table(lines, "gone", own)] == ["score 1.5"]


def test_results_are_found_in_results_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert zoo.results() == []
    for path, time in {
        "results/x.jsonl": "3",
        "runs/a/results.jsonl": "1",
        "runs/b/results.jsonl": "2",
    }.items():
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(json.dumps(line(1.0, time=time, changed=None)) + "\n")
    Path("runs/a/metrics.jsonl").write_text("{}\n")
    Path("runs/b/trials.jsonl").write_text("{}\n")
    assert [found["time"] for found in zoo.results()] == ["1", "2", "3"]
    assert [found["time"] for found in zoo.results(Path("runs/b"))] == ["2"]
    assert [found["time"] for found in zoo.results(Path("runs/b/results.jsonl"))] == ["2"]


@pytest.mark.parametrize("row", ["{", "[]", "3", "{}", json.dumps(line(1.0, seed="x")), "[" * 100_000])
def test_a_line_that_is_no_result_is_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line(1.0)) + "\n" + row + "\n")
    with refused(f"line 2 of {path} is not a result"):
        zoo.results(tmp_path)
