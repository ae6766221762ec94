"""Checkpoints that are whole, and the average of the last epochs."""

import copy
import hashlib
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import yaml
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.checkpoints import (
    Checkpoint,
    Checkpointer,
    average_state_dicts,
    ckpt_recency,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.logger import get_logger
from speechbrain.utils.parameter_transfer import Pretrainer

from speechbrain_hyperbolic.dataio.files import (
    StrPath,
    naming_the_file,
    write_text,
)
from speechbrain_hyperbolic.errors import InputError, message_of
from speechbrain_hyperbolic.lobes.classifiers import keep_centers

logger = get_logger(__name__)

LABELS = "label_encoder.txt"  # which output is which speaker
SUMS = "SHA256SUMS"  # as ``sha256sum --check`` reads it


class RecentCheckpointer(Checkpointer):
    """A Checkpointer that keeps the last epochs, for their average.

    Checkpoints are whole: they are written in a folder ``partial`` and moved
    when complete, and those whose files do not have their checksums are named
    in a warning and left out.

    Arguments
    ---------
    checkpoints_dir : str or pathlib.Path
        The folder of the checkpoints.
    keep_epochs : int
        The number of epochs to keep, besides what the recipe keeps.
    pretrainer : AveragedPretrainer
        Loads what a run without checkpoints starts from; None, or one without
        a path, starts from scratch.
    **options : dict
        Those of the stock Checkpointer, e.g. recoverables.

    Example
    -------
    >>> import torch
    >>> checkpointer = RecentCheckpointer(
    ...     getfixture("tmpdir"), recoverables={"m": torch.nn.Linear(1, 1)}
    ... )
    >>> for epoch in range(7):
    ...     checkpointer.save_and_keep_only(meta={"epoch": epoch})
    >>> len(checkpointer.list_checkpoints())
    5
    """

    def __init__(
        self,
        checkpoints_dir: StrPath,
        keep_epochs: int = 5,
        pretrainer: "AveragedPretrainer | None" = None,
        **options: Any,
    ) -> None:
        super().__init__(checkpoints_dir, **options)
        self.keep_epochs = keep_epochs
        self.pretrainer = pretrainer
        self._damage: dict[pathlib.Path, str] = {}  # of those seen

    def list_checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that are whole; others are named once."""
        whole = []
        for path in sorted(self.checkpoints_dir.glob("CKPT*/")):
            if path not in self._damage:
                self._damage[path] = _find_damage(path)
                if self._damage[path]:
                    logger.warning(
                        f"{path} is left out, since it is damaged: "
                        f"{self._damage[path]}"
                    )
            if not self._damage[path]:
                whole.append(_read_checkpoint(path))
        return whole

    def last_epochs(self, count: int) -> list[Checkpoint]:
        """Those of the last finished epochs, the newest first."""
        return self.find_checkpoints(
            ckpt_predicate=lambda checkpoint: checkpoint.meta["end-of-epoch"],
            max_num_checkpoints=count,
        )

    def recover_if_possible(
        self, *args: Any, **kwargs: Any
    ) -> Checkpoint | None:
        """As the stock method; without a checkpoint, from the pretrainer."""
        checkpoint = super().recover_if_possible(*args, **kwargs)
        if checkpoint is not None:
            return checkpoint
        for path, damage in self._damage.items():
            if damage:
                raise InputError(
                    f"{self.checkpoints_dir} has no checkpoint that is whole: "
                    f"in {path.name}, {damage}. Restore a copy, or pass "
                    "another --output_folder"
                )
        if self.pretrainer:
            self.pretrainer.load_collected(labels=self.checkpoints_dir / LABELS)
        return None

    def save_checkpoint(
        self,
        meta: dict[str, Any] | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """As the stock method, but a failed write leaves no trace."""
        partial = self.checkpoints_dir / "partial"
        if if_main_process():
            shutil.rmtree(partial, ignore_errors=True)  # left by a kill
            name = name or self._new_checkpoint_dirpath().name[len("CKPT+") :]
        staging = copy.copy(self)
        staging.checkpoints_dir = partial
        try:
            with naming_the_file(partial / f"CKPT+{name}" / "CKPT.yaml"):
                saved = Checkpointer.save_checkpoint(
                    staging, meta or {}, end_of_epoch, name, logging.DEBUG
                )
                if saved:
                    lines = _checksums(saved.path)
                    write_text(saved.path / SUMS, "\n".join([*lines, ""]))
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # frees the space
            raise
        if saved:
            path = self.checkpoints_dir / saved.path.name
            os.replace(saved.path, path)
            self._damage[path] = ""
            saved = _read_checkpoint(path)
            logger.log(verbosity, f"Saved a checkpoint in {path}")
        ddp_barrier()  # no process looks for checkpoints before it is there
        return saved

    def delete_checkpoints(
        self,
        *,
        num_to_keep: int = 1,
        min_keys: Collection[str] | None = None,
        max_keys: Collection[str] | None = None,
        importance_keys: Collection[Callable] = (ckpt_recency,),
        ckpt_predicate: Callable[[Checkpoint], bool] | None = None,
        verbosity: int = logging.INFO,
    ) -> None:
        """As the stock method, but the last epochs stay."""
        rankings: list[dict[str, Any]] = [
            *({"min_key": key} for key in min_keys or ()),
            *({"max_key": key} for key in max_keys or ()),
            *({"importance_key": key} for key in set(importance_keys)),
        ]
        if if_main_process():
            kept = self.last_epochs(self.keep_epochs)
            for by in rankings:
                kept += self.find_checkpoints(
                    max_num_checkpoints=num_to_keep, **by
                )
            # Moved first, so that a kill leaves all of a checkpoint or none
            deleted = self.checkpoints_dir / "partial" / "deleted"
            for checkpoint in filter(ckpt_predicate, self.list_checkpoints()):
                if checkpoint not in kept:
                    deleted.parent.mkdir(exist_ok=True)
                    os.replace(checkpoint.path, deleted)
                    shutil.rmtree(deleted)
                    logger.log(verbosity, f"Deleted {checkpoint.path}")
        ddp_barrier()


def _read_checkpoint(path: pathlib.Path) -> Checkpoint:
    meta = yaml.safe_load((path / "CKPT.yaml").read_text(encoding="utf-8"))
    if not {"end-of-epoch", "unixtime"} <= set(meta):
        raise ValueError
    return Checkpoint(path, meta, {p.stem: p for p in path.glob("*.ckpt")})


def _find_damage(folder: pathlib.Path) -> str:
    """Names a file that is not what was saved; "" if all are."""
    try:
        _read_checkpoint(folder)
    except (OSError, TypeError, ValueError, yaml.YAMLError):
        return "CKPT.yaml is not what was saved"
    sums = folder / SUMS
    if not sums.is_file():
        return ""  # saved by the stock class
    saved = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    differing = {*saved} ^ {*_checksums(folder)}
    if not differing:
        return ""
    name = min(differing).rpartition("  ")[2]
    return f"{name} is missing or not as in {SUMS}"


def _checksums(folder: pathlib.Path) -> list[str]:
    """The lines of SHA256SUMS."""
    lines = []
    for path in [folder / "CKPT.yaml", *sorted(folder.glob("[!.]*.ckpt"))]:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        lines.append(f"{digest.hexdigest()}  {path.name}")
    return lines


def average_epochs(
    checkpoints_dir: StrPath, count: int = 5, name: str = "embedding_model"
) -> dict[str, torch.Tensor]:
    """The mean of a module's state dict over the last epochs."""
    epochs = []
    if pathlib.Path(checkpoints_dir).is_dir():  # which a Checkpointer makes
        epochs = RecentCheckpointer(checkpoints_dir).last_epochs(count)
    if not epochs:
        raise InputError(
            f"{checkpoints_dir} has no checkpoint of a finished epoch: train "
            "first, or name the save folder of a run"
        )
    paths = [epoch.path / f"{name}.ckpt" for epoch in epochs]
    dtypes = {key: value.dtype for key, value in read_state(paths[0]).items()}
    mean = average_state_dicts(map(read_state, paths))
    # The stock average turns the batch counts of BatchNorm into floats.
    return {key: value.to(dtypes[key]) for key, value in mean.items()}


def read_state(path: StrPath) -> dict[str, Any]:
    """The state dict of a file, whose code is not run."""
    try:
        return torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch raise many kinds
        raise InputError(
            f"{path} is missing, damaged or not a file of weights: restore a "
            "copy"
        ) from error


def load_weights(
    name: str,
    module: torch.nn.Module,
    state: dict[str, Any],
    path: StrPath,
) -> None:
    """Loads weights, or refuses those of other names or shapes."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        message = message_of(error)
        raise InputError(
            f"{path} has another {name} ({message}): pass the options that its "
            "training had"
        ) from error


class AveragedPretrainer(Pretrainer):
    """A Pretrainer that loads the average of a run's last epochs.

    Arguments
    ---------
    path : str or pathlib.Path
        The save folder of a run, or a model folder, which holds
        ``embedding_model.ckpt``. None leaves the modules untrained.
    count : int
        The number of epochs to average.
    loadables : mapping
        Name of a recoverable -> module.
    names : list of str
        The loadables to load; None loads all.

    Raises
    ------
    InputError
        If one of the names is not a loadable. ``load_collected``: if the
        weights of a module are missing or do not fit.

    Example
    -------
    >>> import torch
    >>> model = torch.nn.Linear(1, 1)
    >>> folder = getfixture("tmpdir")
    >>> checkpointer = Checkpointer(folder, {"embedding_model": model})
    >>> _ = checkpointer.save_checkpoint()
    >>> pretrainer = AveragedPretrainer(
    ...     folder, loadables={"embedding_model": model}
    ... )
    >>> pretrainer.load_collected()
    """

    def __init__(
        self,
        path: StrPath | None,
        count: int = 5,
        loadables: Mapping[str, torch.nn.Module] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        loadables = loadables or {}
        names = list(loadables) if names is None else names
        names = [names] if isinstance(names, str) else names
        for name in set(names) - set(loadables):
            raise InputError(
                f"pretrain_modules has {name}, expected some of "
                f"{', '.join(loadables)}"
            )
        super().__init__(loadables={name: loadables[name] for name in names})
        self.path = path
        self.count = count

    def collect_files(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the files are local."""

    def load_collected(
        self, *args: Any, labels: pathlib.Path | None = None, **kwargs: Any
    ) -> None:
        """Loads the modules; centers go to the speakers in ``labels``."""
        if self.path is None:
            return
        folder = pathlib.Path(self.path)
        is_model = any(folder.glob("*.ckpt"))
        for name, module in self.loadables.items():
            if not is_model:
                state = average_epochs(folder, self.count, name)
            elif (folder / f"{name}.ckpt").is_file():
                state = read_state(folder / f"{name}.ckpt")
            else:
                raise InputError(
                    f"{folder} has no {name}: pass the save folder of its "
                    "training as --pretrain_path, or start from what it has "
                    'by --pretrain_modules="[embedding_model]"'
                )
            if name == "classifier" and labels is not None:
                keep_centers(module, state, *map(speakers_in, (folder, labels)))
            load_weights(name, module, state, folder)
        logger.info(f"Loaded {', '.join(self.loadables)} from {folder}.")


def speakers_in(path: pathlib.Path) -> list[str]:
    """The speakers of a classifier, from their file or its folder."""
    files = [path, path / LABELS, path / "label_encoder.ckpt"]  # the stock's
    encoder = CategoricalEncoder()
    if not (found := [file for file in files if file.is_file()]):
        raise InputError(
            f"{path} has no {LABELS}, which says whose the centers are: "
            "restore it, or start another training without them by "
            '--pretrain_modules="[embedding_model]"'
        )
    encoder.load(found[0])
    return [name for _, name in sorted(encoder.ind2lab.items())]
