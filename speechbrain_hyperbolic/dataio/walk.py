"""The audio files below a folder, and why others are left out."""

import os
import pathlib
from collections.abc import Iterator

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.names import (
    has_audio_extension,
    is_of_system,
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
    skipped: dict[str, list[str]],
) -> Iterator[tuple[str, str, str]]:
    """Yields folder below the root with a slash, name and path of each file.

    Links are followed last, and no folder is read twice.
    """
    real_root = os.path.realpath(root)
    own = None
    if outputs is not None:
        real = pathlib.Path(os.path.realpath(outputs))
        if real != pathlib.Path(real_root) and real.is_relative_to(real_root):
            own = real.relative_to(real_root).parts[0]
    folders = [("", str(root), real_root)]
    links: list[tuple[str, str, str]] = []
    visited = set()
    while folders or links:
        if folders:
            below, folder, real_path = folders.pop()
        else:
            below, folder, real_path = links.pop(0)
            if real_path in visited or _is_within(real_root, real_path):
                skipped["link to a folder that is read already"].append(folder)
                continue
        if real_path in visited:
            continue
        visited.add(real_path)
        try:
            with os.scandir(folder) as entries:
                content = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            skipped[f"folder that can't be read ({error.strerror})"].append(
                folder
            )
            continue
        if below and not _OUTPUTS.isdisjoint(entry.name for entry in content):
            skipped["folder of a run's results"].append(folder)
            continue
        for entry in content:
            name, path = entry.name, entry.path
            if entry.is_dir():
                if is_of_system(name):
                    skipped["hidden or of the system"].append(path)
                elif not below and name == own:
                    skipped["folder of a run's results"].append(path)
                elif entry.is_symlink():
                    links.append(
                        (f"{below}{name}/", path, os.path.realpath(path))
                    )
                else:
                    folders.append(
                        (f"{below}{name}/", path, f"{real_path}/{name}")
                    )
            elif reason := _why_no_audio(name, path, entry):
                skipped[reason].append(path)
            else:
                yield below, name, path


def _is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder itself or in it."""
    return os.path.join(path, "").startswith(os.path.join(folder, ""))


def _why_no_audio(name: str, path: str, entry: os.DirEntry) -> str:
    """Why a file is left out; "" for audio."""
    if name[0] in "._" and is_of_system(name):
        return "hidden or of the system"
    if not has_audio_extension(name):
        extension = os.path.splitext(name)[1].lower()
        if extension in _IS_TEXT or not audio.looks_like_audio(path):
            return f"{extension or 'no extension'} (no audio)"
    if entry.is_symlink() and not entry.is_file():
        return "broken link"
    return ""
