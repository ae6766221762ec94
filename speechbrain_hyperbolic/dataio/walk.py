"""The audio files below a folder, and why others are left out."""

import os
import pathlib
import re
from collections.abc import Iterator

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import StrPath

# Files and folders of operating systems and of network disks
_SYSTEM = re.compile(
    r"[.@#$~].*|__.*|_background_noise_|lost\+found|found\.\d+|"
    "system volume information|recycler|network trash folder|temporary items",
    re.IGNORECASE,
)
# Files that a run or an export leaves in its folder
_OUTPUTS = {"run.lock", "hyperparams.yaml", "prepare.json", "results.json"}
_TEXT = (
    ".txt .csv .tsv .json .jsonl .xml .md .pdf .html .log .lst .lab .textgrid "
    ".phn .wrd .trn .yaml .yml .py .npy .npz .pt .ckpt .jpg .png .zip .gz .tar"
)
_IS_TEXT = frozenset(_TEXT.split())


def walk(
    root: pathlib.Path,
    outputs: StrPath | None,
    skipped: dict[str, str],
) -> Iterator[tuple[str, str, str]]:
    """Yields each file's path below the root, its path and its real path.

    ``skipped`` gets the paths of others, and why they are left out.
    Links to folders are followed last, and no folder is read twice.
    """
    real_root = os.path.realpath(root)
    own = ""  # the folder of the outputs
    if outputs is not None:
        own = os.path.realpath(outputs).removesuffix(f"{os.sep}save")
    visited: set[str] = set()
    links: list[tuple[str, str]] = []
    folders = [("", str(root), real_root)]
    while folders or links:
        if folders:
            below, folder, real = folders.pop()
        else:
            below, folder = links.pop(0)
            real = os.path.realpath(folder)
        start = os.path.join(real, "")
        if real in visited or real_root.startswith(start):
            skipped[folder] = "is a link to a folder that is read already"
            continue
        visited.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            skipped[folder] = f"can't be read ({error.strerror})"
            continue
        if below and any(entry.name in _OUTPUTS for entry in entries):
            skipped[folder] = "is a folder of a run's results"
            continue
        inner = []
        for entry in entries:
            name, path, is_link = entry.name, entry.path, entry.is_symlink()
            real_path = start + name
            if os.path.isdir(path) if is_link else entry.is_dir():
                if _SYSTEM.fullmatch(name):
                    skipped[path] = "is hidden or of the system"
                elif real_path == own:
                    skipped[path] = "is a folder of a run's results"
                elif is_link:
                    links.append((f"{below}{name}/", path))
                else:
                    inner.append((f"{below}{name}/", path, real_path))
            elif reason := _why_no_audio(name, path):
                skipped[path] = reason
            else:
                real_path = os.path.realpath(path) if is_link else real_path
                yield below + name, path, real_path
        folders += reversed(inner)


def _why_no_audio(name: str, path: str) -> str:
    """Why a file is left out; "" for audio."""
    if name[0] in "._" and _SYSTEM.fullmatch(name):
        return "is hidden or of the system"
    extension = os.path.splitext(name)[1].lower()
    if extension in audio.EXTENSIONS:
        return ""
    if extension in _IS_TEXT or not audio.looks_like_audio(path):
        return f"is no audio ({extension or 'no extension'})"
    return ""
