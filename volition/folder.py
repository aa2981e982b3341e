"""What lies in a run's folder besides checkpoints: lock, config.json, results.jsonl; and the data folder."""

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any

from volition.errors import VolitionError

CONFIG_FIELDS = {"recipe": str, "variant": str, "config": dict, "seed": int, "data": str | None}


def take(folder: Path) -> IO[str]:
    """Make `folder` and hold its lock for this process until the returned file is closed."""
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with lock:
                lock.seek(0)
                owner = lock.read(20).strip() or "unknown"
            raise VolitionError(
                f"{folder} is in use by process {owner}: wait for it, or give another folder with --run"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        for temporary in (folder / "checkpoints").glob(".saving-*"):
            temporary.unlink()
        return lock
    except OSError as error:
        raise VolitionError(
            f"cannot use {folder} as a run folder ({error.strerror or error}): give another with --run"
        ) from None


def write_config(folder: Path, saved: dict[str, Any]) -> None:
    """Write config.json whole or not at all."""
    temporary = folder / ".config.json"
    try:
        temporary.write_text(json.dumps(saved, indent=2) + "\n")
        temporary.replace(folder / "config.json")
    except OSError as error:
        raise VolitionError(f"cannot write {folder / 'config.json'} ({error.strerror}): mend the folder") from None


def read_config(folder: str | Path) -> dict[str, Any]:
    """What config.json of a run folder says; VolitionError when it is missing or damaged."""
    path = Path(folder) / "config.json"
    try:
        saved = json.loads(path.read_bytes())
        if not isinstance(saved, dict):
            raise ValueError("not a JSON object")
        for name, kind in CONFIG_FIELDS.items():
            if name not in saved or not isinstance(saved[name], kind) or isinstance(saved[name], bool):
                raise ValueError(f"{name!r} is missing or of a wrong kind")
    except (FileNotFoundError, NotADirectoryError):
        raise VolitionError(f"{folder} is not a run folder (it has no config.json); volition train makes one") from None
    except OSError as error:
        raise VolitionError(f"cannot read {path} ({error.strerror}): mend it") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise VolitionError(f"{path} is damaged ({reason}); the command that trained it writes it anew") from None
    return saved


def data_folder(folder: str | Path | None = None) -> Path | None:
    """The folder that real data is looked for in: `folder`, else $VOLITION_DATA, else none."""
    source, folder = ("--data", folder) if folder else ("$VOLITION_DATA", os.environ.get("VOLITION_DATA"))
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise VolitionError(f"{source} is {folder}, which is not a folder; volition data says what belongs there")
    return Path(folder)
