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
) -> Iterator[tuple[str, str]]:
    """Yields the path below the root and the path of each file.

    Links to folders are followed last, and no folder is read twice.
    """
    real_root = os.path.realpath(root)
    own = ""  # the folder of the outputs
    if outputs is not None:
        own = os.path.realpath(outputs).removesuffix(f"{os.sep}save")

    def note(error: OSError) -> None:
        why = f"folder that can't be read ({error.strerror})"
        skipped[why].append(error.filename)

    visited: set[str] = set()
    starts = [("", str(root))]
    for top, start in starts:  # which grows by links
        real = os.path.realpath(start)
        above = real_root.startswith(os.path.join(real, ""))
        if top and (real in visited or above):
            skipped["link to a folder that is read already"].append(start)
            continue
        for folder, folders, files in os.walk(start, onerror=note):
            inner = folder[len(start) :]
            below = f"{top}{inner[1:]}/" if inner else top
            found, folders[:] = sorted(folders), []  # it enters what is added
            if real + inner in visited:
                continue
            visited.add(real + inner)
            if below and not _OUTPUTS.isdisjoint(files):
                skipped["folder of a run's results"].append(folder)
                continue
            for name in found:
                path = os.path.join(folder, name)
                if is_of_system(name):
                    skipped["hidden or of the system"].append(path)
                elif real + inner + os.sep + name == own:
                    skipped["folder of a run's results"].append(path)
                elif os.path.islink(path):
                    starts.append((f"{below}{name}/", path))
                else:
                    folders.append(name)
            for name in sorted(files):
                path = os.path.join(folder, name)
                if reason := _why_no_audio(name, path):
                    skipped[reason].append(path)
                else:
                    yield below + name, path


def _why_no_audio(name: str, path: str) -> str:
    """Why a file is left out; "" for audio."""
    if name[0] in "._" and is_of_system(name):
        return "hidden or of the system"
    if not has_audio_extension(name):
        extension = os.path.splitext(name)[1].lower()
        if extension in _IS_TEXT or not audio.looks_like_audio(path):
            return f"{extension or 'no extension'} (no audio)"
    return ""
