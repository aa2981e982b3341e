"""`volition label`: the labelling page and its store, from the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from volition import zoo
from volition.errors import VolitionError
from volition.terminal import Parser, print_table

HELP = """usage: volition label COMMAND STORE …

People rank completions on a page of your own; reward_model learns from what they say.
STORE is a file, as labels.db, or a PostgreSQL database, as postgresql://user@host/name.

  import     prompts with completions to rank, or rankings made elsewhere
  invite     make personal tokens for labelers, or revoke them
  serve      the page
  stats      progress, speed and agreement
  export     rankings as JSON lines, or as chosen/rejected pairs

example:
  volition label import labels.db prompts.jsonl --share 0.1
  volition label invite labels.db ann ben
  volition label serve labels.db
Help:        volition label COMMAND --help
"""


def _parser(command: str, what: str, example: str) -> Parser:
    parser = Parser(f"label {command}", what, example)
    parser.add_argument("store", metavar="STORE", help="file or PostgreSQL URL")
    return parser


def import_(words: list[str]) -> None:
    """Prompts and rankings in."""
    parser = _parser(
        "import",
        "Prompts with 2 to 9 completions to rank, as JSON lines: prompt and completions (texts, or objects with text\n"
        "or image and model); tasks of Label Studio; or one completion a row (prompt, completion or response), which\n"
        "are put together by prompt, across files too. Also rankings in every form that reward_model reads.",
        "volition label import labels.db prompts.jsonl --share 0.1 --copies 3",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument("--share", type=float, default=0.1, help="share of prompts that several labelers rank (0.1)")
    parser.add_argument("--copies", type=int, default=2, help="labelers of each of these (2)")
    parser.add_argument("--anew", action="store_true", help="leave rankings in the files aside: rank everything anew")
    args = parser.parse_args(words)
    if not 0 <= args.share <= 1:
        raise VolitionError(f"--share {args.share}: it is a share, from 0 to 1")
    if args.copies < 2:
        raise VolitionError(f"--copies {args.copies}: agreement needs 2 labelers or more")
    from volition.data.labels import Store
    from volition.web import bring

    found = bring.Brought()
    asked, images = bring.read(args.files, found, rankings=not args.anew)
    bring.bring(Store(args.store, create=True), asked, images, found, args.share, args.copies)
    print(f"{found.prompts} new prompts, {found.shared} of them for {args.copies} labelers; {found.rankings} rankings")
    for count, what in (
        (found.known, "prompts were there already"),
        (found.repeated, "completions left out: equal to another one of their prompt"),
        (found.empty, "completions left out: empty"),
        (found.few, "prompts left out: fewer than two different completions"),
    ):
        if count:
            print(f"  {count} {what}")


def invite(words: list[str]) -> None:
    """Tokens out."""
    parser = _parser(
        "invite",
        "Make a personal token for each labeler and print it; the store keeps only its hash. A new token replaces the\n"
        "old one. With --revoke: nobody may sign in by these names any more; their rankings stay.",
        "volition label invite labels.db ann ben",
    )
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("--revoke", action="store_true", help="take the tokens back instead")
    args = parser.parse_args(words)
    from volition.data.labels import Store
    from volition.web import people

    store = Store(args.store, create=not args.revoke)
    for name in args.names:
        if args.revoke:
            people.revoke(store, name)
        else:
            print(f"{name}\t{people.invite(store, name)}")


def serve(words: list[str]) -> None:
    """The page."""
    parser = _parser(
        "serve",
        "Serve the labelling page until Ctrl-C. Without --host only this machine can reach it. Beyond a network that\n"
        "you trust put a server with HTTPS before it, which passes Host and X-Forwarded-Proto on (docs/labelling.md).",
        "volition label serve labels.db --host 0.0.0.0 --port 8080",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port (8000)")
    args = parser.parse_args(words)
    from volition.data.labels import Store

    try:
        from volition.web.app import create
        from volition.web.listen import listen
    except ModuleNotFoundError as error:
        raise VolitionError(f"the labelling page needs {error.name}: pip install 'volition[web]'") from None
    listen(create(Store(args.store)), args.host, args.port, "labelling page")


def stats(words: list[str]) -> None:
    """Figures of a store."""
    parser = _parser(
        "stats", "Progress, speed of each labeler, and how far they agree.", "volition label stats labels.db"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    args = parser.parse_args(words)
    from volition.data.labels import Store
    from volition.web import report

    found = report.stats(Store(args.store))
    if args.json:
        print(json.dumps(_without_nan(found), indent=1, ensure_ascii=False))
        return
    print(f"{found['prompts']} prompts, {found['ranked prompts']} of them ranked")
    print(f"{found['rankings']} rankings of {found['wanted']} wanted")
    print(f"{found['prompts with several labelers']} prompts ranked by several labelers")
    for name, words_ in report.WORDS.items():
        if found[name] == found[name]:
            print(f"  {words_}: {found[name]:.3f}")
    columns = list(found["labelers"][0]) if found["labelers"] else []
    rows = [[_short(row[name]) for name in columns] for row in found["labelers"]]
    if rows:
        print_table(columns, rows)


def _short(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _without_nan(value):
    if isinstance(value, dict):
        return {name: _without_nan(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and value != value else value


def export(words: list[str]) -> None:
    """Rankings out."""
    parser = _parser(
        "export",
        "Write the rankings as JSON lines: prompt, completions, rank (1 is best, ties share a number), labeler,\n"
        "seconds, and ratings, flags, note and models in meta. Images go into the folder images/ beside OUT.",
        "volition label export labels.db rankings.jsonl",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write, .jsonl or .jsonl.gz")
    parser.add_argument(
        "--pairs", action="store_true", help="prompt, chosen, rejected: a row for each pair, ties left out"
    )
    args = parser.parse_args(words)
    from volition.data import preferences
    from volition.data.labels import Store, images, read

    store = Store(args.store)
    found = read(store)
    (preferences.write_pairs if args.pairs else preferences.write)(args.out, found)
    for name, data in images(store):
        folder = args.out.parent / "images"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    print(f"{len(found)} rankings in {args.out}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "import": import_,
    "invite": invite,
    "serve": serve,
    "stats": stats,
    "export": export,
}


def label(words: list[str]) -> None:
    """Run one of the commands."""
    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if words[0] not in COMMANDS:
        known = "the commands are " + ", ".join(COMMANDS)
        raise VolitionError(f"volition label has no command {words[0]!r}; {zoo.nearest(words[0], COMMANDS, known)}")
    COMMANDS[words[0]](words[1:])
    sys.stdout.flush()
