"""Checksums of the files of a folder, in the form of ``sha256sum``.

``cd FOLDER && sha256sum --check SHA256SUMS`` tells the same as ``find_damage``.
"""

import hashlib
import os
import pathlib
import re
import zipfile

SUMS = "SHA256SUMS"
_OF_A_CHECKPOINT = re.compile(r"[^.].*\.ckpt(\.\d+-of-\d+)?")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(folder: str | pathlib.Path) -> None:
    """Writes the checksums of all that a folder holds, and waits for the disk.

    Arguments
    ---------
    folder : str or pathlib.Path
    """
    folder = pathlib.Path(folder)
    files = _files(folder)
    for path in files.values():
        _synchronize(path)
    lines = [f"{_digest(path)}  {name}\n" for name, path in files.items()]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    _synchronize(folder / SUMS)


def find_damage(folder: str | pathlib.Path) -> str:
    """What is wrong with a folder whose checksums were written.

    Arguments
    ---------
    folder : str or pathlib.Path

    Returns
    -------
    damage : str
        Names the first file that is missing or has changed, or a ``.ckpt``
        that has no checksum; "" if all are as they were. Without any
        checksums, a ``.ckpt`` that is empty, or a zip file (of torch.save)
        without its end.

    Example
    -------
    >>> folder = pathlib.Path(getfixture("tmpdir"))
    >>> _ = (folder / "a.ckpt").write_text("whole")
    >>> write_sums(folder)
    >>> find_damage(folder)
    ''
    >>> _ = (folder / "a.ckpt").write_text("hole")
    >>> find_damage(folder)
    'a.ckpt is not what was saved'
    """
    folder = pathlib.Path(folder)
    files = _files(folder)
    if not (folder / SUMS).is_file():
        cut = (name for name in files if _counts(name) and _is_cut(files[name]))
        return next((f"{name} is truncated" for name in cut), "")
    text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    lines = [_LINE.fullmatch(line) for line in text.splitlines()]
    if not lines or None in lines:
        return f"{SUMS} is not what was saved"
    # Only what is in the folder is opened, whatever the lines say.
    for digest, name in (line.groups() for line in lines if line):
        if name not in files:
            return f"{name} is missing"
        if _digest(files.pop(name)) != digest:
            return f"{name} is not what was saved"
    more = next(filter(_counts, files), "")  # whose line is missing
    return more and f"{more} is not in {SUMS}"


def _counts(name: str) -> bool:
    """Whether a file is of a checkpoint, and not somebody's notes."""
    return bool(_OF_A_CHECKPOINT.fullmatch(pathlib.PurePath(name).name))


def _is_cut(path: pathlib.Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(2)
        return not start or (start == b"PK" and not zipfile.is_zipfile(file))


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SUMS
    }


def _digest(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _synchronize(path: pathlib.Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
