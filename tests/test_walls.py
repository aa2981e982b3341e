"""The walls of the house: who may import what (docs/design.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "volition"
RECIPES = ("algorithms", "applications", "feedback", "generative")
# the parts of a run: one idea in several files
RUN = {"run", "stage", "checkpoint", "distributed", "folder", "machine", "metrics", "progress", "results", "settings"}
WHOLE = {"instructgpt"}  # recipes that are nothing but others of their chapter, one after the other
OUTSIDE = set(sys.stdlib_module_names) | {"torch", "numpy", "numba"}
ALLOWED = {  # part -> the parts of volition it may import, besides itself and errors
    "core": set(),
    "nets": {"core"},
    "data": {"core"},
    "envs": {"core", "data"},
    **{chapter: {"core", "nets", "envs", "data", "run"} for chapter in RECIPES},
    "run": {"core"},
    "zoo": {"core"},
    "parallel": {"core"},
}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part(name: str) -> str:
    """The part of the house that a module's first name below volition belongs to."""
    return "run" if name in RUN else name


def imports(path: Path) -> set[str]:
    """Full names of all that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def breaches(path: Path, root: Path) -> list[str]:
    """What a file imports through a wall."""
    inside = path.relative_to(root).with_suffix("").parts
    mine = part(inside[0])
    if mine not in ALLOWED:  # cli, web and their helpers may import all
        return []
    found = []
    for name in sorted(imports(path)):
        words = name.split(".")
        if words[0] != "volition":
            if mine == "core" and words[0] not in OUTSIDE:
                found.append(name)
        elif mine in RECIPES and words[1] in RECIPES:
            whole = inside[-1] in WHOLE and words[1] == mine  # its steps are what their recipes do, not copies of it
            if not whole and (words[1] != mine or not words[2].startswith("_")):  # a chapter's helpers are no recipes
                found.append(name)
        elif len(words) > 1 and part(words[1]) not in ALLOWED[mine] | {mine, "errors", "__version__"}:
            found.append(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stay_within_the_walls(path: Path) -> None:
    assert breaches(path, ROOT) == []


@pytest.mark.parametrize(
    ("where", "line", "breach"),
    [
        ("core/a.py", "import gymnasium", True),
        ("core/a.py", "import torch.nn", False),
        ("core/a.py", "from volition.nets.mlp import mlp", True),
        ("core/a.py", "def f():\n    from volition import run", True),
        ("core/a.py", "from volition.errors import VolitionError", False),
        ("nets/a.py", "from volition.core import policy", False),
        ("nets/a.py", "from volition.envs import b", True),
        ("data/a.py", "from volition.run import Run", True),
        ("envs/a.py", "from volition.data import images", False),
        ("applications/a.py", "from volition.algorithms import ppo", True),
        ("applications/a.py", "from volition.applications.b import f", True),
        ("applications/a.py", "from volition.applications._b import f", False),
        ("applications/a.py", "from volition.feedback._b import f", True),
        ("applications/a.py", "from volition.run import Run", False),
        ("feedback/instructgpt.py", "from volition.feedback import sft", False),
        ("feedback/instructgpt.py", "from volition.algorithms import ppo", True),
        ("feedback/sft.py", "from volition.feedback import instructgpt", True),
        ("applications/a.py", "from volition import zoo", True),
        ("metrics.py", "from volition.checkpoint import write", False),
        ("metrics.py", "from volition.data import catalog", True),
        ("zoo.py", "import volition.run", True),
        ("cli.py", "import volition.applications.ram", False),
    ],
)
def test_the_check_itself(tmp_path: Path, where: str, line: str, breach: bool) -> None:
    path = tmp_path / where
    path.parent.mkdir(exist_ok=True)
    path.write_text(line)
    assert bool(breaches(path, tmp_path)) == breach


@pytest.mark.parametrize("line", ["list", "--help", "train", "data", "table --help", "--version", "lst"])
def test_light_commands_import_nothing_heavy(line: str, tmp_path: Path) -> None:
    words = line.split()
    heavy = ["torch", "numpy", "gymnasium", "tyro", "rich", "matplotlib"]
    code = (
        "import sys\nfrom volition.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    pass\n"  # argparse leaves so after its help
        f"heavy = set({heavy}) & set(sys.modules)\nassert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
