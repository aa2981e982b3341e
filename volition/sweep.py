"""`volition sweep`: seeds and settings as processes of their own, a table and curves at the end."""

import json
import shlex
from pathlib import Path
from typing import Any

from volition import zoo
from volition.children import Child, play
from volition.errors import VolitionError
from volition.plan import Plan, Point, flags_of, text_of

HELP = """usage: volition sweep RECIPE[:VARIANT] [--seeds N] [--setting A,B,C …] [--jobs N] [--out DIR] [--search N] …

Train and evaluate a recipe with several seeds and with every combination of the settings that were given
several values, each run in a process and a folder of its own. At the end a table shows mean ± sd over the
seeds, the interquartile mean (IQM) with a 95 % bootstrap interval, and the baselines; curves.png shows the
learning curves with 95 % bands. The same command goes on where it stopped, and passes over what is finished.
Ctrl-C lets each run save itself first. A run that fails stops none of the others.

  --seeds N            seeds 0 … N−1 (default: 5), or a list as in --seeds 0,3,7
  --setting A,B,C      any setting of the recipe, one value or several; --hidden 64,128 128 are two: 64, and 128 128
  --jobs N             processes at a time (default: one for each core)
  --out DIR            folder of all the runs (default: runs/RECIPE-VARIANT-sweep)
  --search N           N trials that Optuna chooses instead of all combinations; ranges are written low..high,
                       or low..high:log; needs pip install 'volition[sweep]'
  --episodes N         and whatever else volition evaluate DIR --help shows for the recipe
  --device, --data, --threads, --save-every, --log-every      as volition train takes them

examples:
  volition sweep reinforce --seeds 5                              five seeds
  volition sweep reinforce:tiny --lr 1e-3,1e-2 --gamma 0.9,0.99   four combinations × five seeds
  volition sweep reinforce --search 20 --lr 1e-4..1e-1:log --seeds 3
  volition sweep reinforce --help                                 the settings of a recipe
"""
DRAWN = 8  # settings of a search in the picture


def sweep(words: list[str]) -> None:
    """Train and evaluate seeds × settings, then show what came of it."""
    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if words[0].startswith("-"):
        raise VolitionError(f"the recipe comes first: volition sweep RECIPE {shlex.join(words)}")
    recipe, variant = zoo.resolve(words[0])
    if {"-h", "--help"} & set(words):
        print(f"{HELP}\nsettings of {recipe.name}:{variant} and their values there:")
        for name, value in flags_of(recipe.load().VARIANTS[variant]).items():
            print(f"  --{name} {' '.join(map(text_of, value)) if isinstance(value, tuple) else text_of(value)}")
        return
    plan = Plan(recipe, variant, words[1:])
    again = shlex.join(["volition", "sweep", *words])
    runs = Sweep(plan)
    complete, children = runs.run(), runs.children
    done = sum(child.state == "done" for child in children)
    if not complete:
        raise KeyboardInterrupt(
            f"stopped with {done} of {len(children)} runs done, those under way saved; to go on: {again}"
        )
    report(plan, list(runs.points.values()))
    if failed := [child for child in children if child.state == "failed"]:
        from volition.progress import say

        for child in failed:
            say(f"volition: {child.name}: {child.reason} ({child.folder / 'sweep.log'})")
        raise VolitionError(f"{len(failed)} of {len(children)} runs failed (above); the same command tries them again")


class Sweep:
    """The runs of a plan under way: what waits, what has ended, and the search that thinks of more."""

    def __init__(self, plan: Plan) -> None:
        from volition.board import Board

        self.plan = plan
        self.points: dict[str, Point] = {}
        self.waiting: list[Child] = []
        self.search: Any = None
        grid = [] if plan.trials else plan.grid()
        if plan.trials:
            from volition.search import Search

            if not plan.space:
                raise VolitionError("--search needs a range or values to choose from, as in --lr 1e-4..1e-2:log")
            alike = {name: values for name, values in plan.settings.items() if name not in plan.space}
            about = [plan.name, alike, plan.seeds, plan.measuring]
            self.search = Search(plan.out, plan.space, plan.trials, plan.paper.get("better", "higher"), about)
            grid = [plan.point(values) for values in self.search.known]
        self.board = Board(plan.name, (plan.trials or len(grid)) * len(plan.seeds))
        for point in grid:
            self._add(point)

    def run(self) -> bool:
        """Run all there is to run; whether nothing stopped it."""
        with self.board:
            return play(self._more, self.plan.jobs, self._ended, self.board.show)

    @property
    def children(self) -> list[Child]:
        """All runs so far."""
        return [child for point in self.points.values() for child in point.children]

    def _add(self, point: Point) -> None:
        self.points[point.label] = point
        for child in point.children:
            if child.result is None:
                self.waiting.append(child)
            else:
                child.state = "done"
                self.board.found()
                collect(self.plan.out, child)

    def _more(self) -> Child | None:
        while self.search and not self.waiting and (values := self.search.ask()) is not None:
            point = self.plan.point(values)
            if point.label not in self.points:
                self._add(point)
            self._settle(self.points[point.label])  # it may be an old one
        return self.waiting.pop(0) if self.waiting else None

    def _ended(self, child: Child) -> None:
        self.board.ended(child)
        if child.state == "done":
            collect(self.plan.out, child)
        self._settle(self.points[child.label])

    def _settle(self, point: Point) -> None:
        """Tell the search what a point is worth, once all its seeds have ended."""
        if self.search and all(child.state in ("done", "failed") for child in point.children):
            lines = point.lines
            scores = zoo.scores(lines, metric(self.plan, lines)) if lines else []
            self.search.tell(point.values, sum(scores) / len(scores) if len(scores) == len(point.children) else None)


def collect(out: Path, child: Child) -> None:
    """Note the result of a run in the sweep's own results.jsonl, once."""
    from volition.results import append_result

    line, path = child.result, out / "results.jsonl"
    try:
        known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise VolitionError(f"cannot read {path} ({error}): mend or remove it") from None
    if line is not None and json.dumps(line) not in known:
        append_result(out, line)


def metric(plan: Plan, lines: list[dict[str, Any]]) -> str:
    """The name of the figure that counts."""
    return plan.paper.get("metric") or next(iter(lines[0]["metrics"]))


def report(plan: Plan, points: list[Point]) -> None:
    """The table and the curves of the runs that are done."""
    from volition.curves import draw_bands, read_history
    from volition.terminal import print_table

    done = [point for point in points if point.lines]
    if not done:
        return
    name = metric(plan, done[0].lines)
    if plan.trials:  # the best first
        done.sort(key=lambda point: _mean(point, name), reverse=plan.paper.get("better") != "lower")
    beside = [n for n in (f"greedy_{name}", *plan.paper.get("baselines", ())) if n in done[0].lines[0]["metrics"]]
    rows = []
    for point in done:
        scores = zoo.scores(point.lines, name)
        others = [zoo.spread(zoo.scores(point.lines, other)) for other in beside]
        cpu = sum(line["cpu_seconds"] for line in point.lines) / len(point.lines)
        count = str(len(scores)) if len(scores) == len(point.children) else f"{len(scores)} of {len(point.children)}"
        label = point.label or plan.name
        rows.append((label, zoo.spread(scores), zoo.interquartile(scores) or "–", *others, count, zoo.duration(cpu)))
    columns = (name, "IQM, 95 %", *beside, "seeds", "CPU time")
    title = " ".join([plan.name, *plan_words(plan)])
    print_table((title, *(column.replace("_", " ") for column in columns)), rows)
    if len(done) > 1:
        best = (min if plan.paper.get("better") == "lower" else max)(done, key=lambda point: _mean(point, name))
        print(f"best mean {name.replace('_', ' ')}: {best.label}")
    shown = done[:DRAWN] if plan.trials else done
    groups = {point.label or plan.name: [read_history(c.folder) for c in point.children if c.state == "done"]
              for point in shown}  # fmt: skip
    if any(history for group in groups.values() for history in group):
        draw_bands(groups, plan.out / "curves.png", title)
        print(plan.out / "curves.png")
    print(f"results: {plan.out / 'results.jsonl'}; volition table --from {shlex.quote(str(plan.out))} shows them again")


def plan_words(plan: Plan) -> list[str]:
    """The settings that are alike everywhere, as they are shown."""
    return [f"{name}={values[0]}" for name, values in plan.settings.items() if name not in plan.space]


def _mean(point: Point, name: str) -> float:
    scores = zoo.scores(point.lines, name)
    return sum(scores) / len(scores)
