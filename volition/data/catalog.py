"""The real data sets that recipes can read: their files, where they are looked for, how to get them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from volition.errors import VolitionError


@dataclass(frozen=True)
class File:
    """One file of a data set, found as `name` or, if that has an md5 too, `name.gz`."""

    name: str
    md5: str
    md5_gz: str = ""


@dataclass(frozen=True)
class DataSet:
    """A data set: `folders` are tried in turn below the data folder; all files must lie in the same one."""

    name: str
    title: str
    files: tuple[File, ...]
    folders: tuple[str, ...]
    used_by: str
    how: str


VOC_FOLDERS = ("VOCdevkit", "voc", "voc-annotations", "")  # its archives unpack to VOCdevkit/VOC2007

CATALOG = (
    DataSet(
        name="mnist",
        title="MNIST, 70,000 handwritten digits (LeCun et al. 1998)",
        files=(
            File(
                "train-images-idx3-ubyte",
                "6bbc9ace898e44ae57da46a324031adb",
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            ),
            File(
                "train-labels-idx1-ubyte",
                "a25bea736e30d166cdddb491f175f624",
                "d53e105ee54ea40749a09fcbcd1e9432",
            ),
            File(
                "t10k-images-idx3-ubyte",
                "2646ac647ad5339dbf082846283269ea",
                "9fb629c4189551a2d022fa330f9573f3",
            ),
            File(
                "t10k-labels-idx1-ubyte",
                "27ae3e4e09519cfbb04c329615203637",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
        folders=("mnist", "MNIST/raw", ""),  # MNIST/raw is torchvision's layout
        used_by="ram",
        how="download the four .gz files of https://ossci-datasets.s3.amazonaws.com/mnist/ (11.6 MB) "
        "into DIR/mnist; a folder that torchvision.datasets.MNIST filled serves as it is",
    ),
    DataSet(
        name="voc2007",
        title="PASCAL VOC 2007, 9,963 photographs with 30,638 boxes of 20 classes (Everingham et al. 2010)",
        files=(
            File("VOC2007/ImageSets/Main/trainval.txt", "010edfa22115c8ca972c09aa4902fd39"),
            File("VOC2007/ImageSets/Main/test.txt", "5b3551c4bf413aefbefcbae42db0275b"),
        ),
        folders=VOC_FOLDERS,
        used_by="tree_rl",
        how="unpack VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar (0.9 GB) of "
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/ in DIR; "
        "the annotations alone are enough for all that sees no picture",
    ),
    DataSet(
        name="voc2012",
        title="PASCAL VOC 2012, 11,540 photographs to train with beside those of 2007",
        files=(File("VOC2012/ImageSets/Main/trainval.txt", "d19bc52123cf42c618465ecce9640700"),),
        folders=VOC_FOLDERS,
        used_by="tree_rl",
        how="unpack VOCtrainval_11-May-2012.tar (2 GB) of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ in DIR",
    ),
    DataSet(
        name="ogs9_dan",
        title="18,387 games of Go on 9×9 with a dan player, people and programs, of online-go.com",
        files=(File("ogs_9x9_dan.sgfs", "974fe3d69d1e192a9994294c2cd50a2e", "81e47125879b5fb5f539f6a96af86c0f"),),
        folders=("sgf/9x9", "9x9", ""),
        used_by="learning from games of Go (volition.data.go_games)",
        how="this selection of the server's public games, one a line, is offered nowhere: "
        "any folder, archive or file of SGF games on 9×9 of your own serves as well",
    ),
    DataSet(
        name="ogs9_kyu",
        title="36,861 games of Go on 9×9 between weaker players, of online-go.com",
        files=(File("ogs_9x9_kyu.sgfs", "e2b6f24de254c86f8b567c580ce410ea", "a04c39135f03290052540118c03e1df0"),),
        folders=("sgf/9x9", "9x9", ""),
        used_by="learning from games of Go (volition.data.go_games)",
        how="this selection of the server's public games, one a line, is offered nowhere: "
        "any folder, archive or file of SGF games on 9×9 of your own serves as well",
    ),
    DataSet(
        name="kgs19",
        title="21,552 games of Go on 19×19 of KGS, with a player of 6 dan or more (2001, 2006, 2015, January 2017)",
        files=(
            File("KGS-2001-19-2298.tar", "ea75e0691dbb6d040ed834bb896096b1", "4f22fc3c2e01e119c42ce169eef6ab5f"),
            File("KGS-2006-19-10388.tar", "9cc4d597a5af2826bb18ac6c7b5b1a01", "82d5aaa4acc0502bd34e6db4f7279f27"),
            File("KGS-2015-19-8133.tar", "cab21b8fa64f8d63195144b28c61434f", "e11485c7c88f3af9c07e861711ef5059"),
            File("KGS-2017_01-19-733.tar", "238ff5c80080c0ce96461e3e6a758d87", "f8d467603fda2ac8dc584231e970c723"),
        ),
        folders=("sgf/19x19/kgs_6d", "kgs_6d", ""),
        used_by="learning from games of Go (volition.data.go_games)",
        how="download these archives as .tar.gz of https://u-go.net/gamerecords/ into DIR/sgf/19x19/kgs_6d; "
        "any other folder or archive of SGF games serves as well, without a check",
    ),
)


def find(name: str, folder: Path | None) -> dict[str, Path]:
    """The files of the set `name` below `folder`, by name without .gz; empty when none is there.

    Only a part of a set is a VolitionError: training on a stand-in would not be what was meant.
    """
    wanted = next(entry for entry in CATALOG if entry.name == name)
    if folder is None:
        return {}
    if not folder.is_dir():
        raise VolitionError(f"the data folder {folder} is gone: bring it back, or name another with --data")
    part = None
    for here in (folder / place for place in wanted.folders):
        found = {}
        for file in wanted.files:
            for path in (here / file.name, here / f"{file.name}.gz"):
                if path.is_file() and (file.md5_gz or path.suffix != ".gz"):
                    found[file.name] = path
                    break
        if len(found) == len(wanted.files):
            return found
        if found and part is None:
            part = here, next(file for file in wanted.files if file.name not in found)
    if part:
        lost = f"{part[1].name}(.gz)" if part[1].md5_gz else part[1].name
        raise VolitionError(f"{part[0]} holds only a part of {name}: add {lost}, or remove the rest")
    return {}


def wrong(name: str, found: dict[str, Path]) -> list[Path]:
    """The files of `found` whose md5 is not the published one."""
    wanted = next(entry for entry in CATALOG if entry.name == name)
    bad = []
    for file in wanted.files:
        path = found[file.name]
        try:
            with path.open("rb") as handle:
                digest = hashlib.file_digest(handle, "md5").hexdigest()
        except OSError as error:
            raise VolitionError(f"cannot read {path} ({error.strerror}): mend it") from None
        if digest != (file.md5_gz if path.suffix == ".gz" else file.md5):
            bad.append(path)
    return bad
