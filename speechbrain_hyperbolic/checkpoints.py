"""Checkpoints that are whole, and the average of the last ones."""

import contextlib
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import yaml
from speechbrain.utils.checkpoints import (
    Checkpoint,
    Checkpointer,
    average_state_dicts,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.logger import get_logger
from speechbrain.utils.parameter_transfer import Pretrainer

from speechbrain_hyperbolic.dataio.checksums import find_damage, write_sums
from speechbrain_hyperbolic.dataio.files import naming_the_file
from speechbrain_hyperbolic.distributed import GivenUp
from speechbrain_hyperbolic.errors import InputError, is_finite
from speechbrain_hyperbolic.sharded_state import Rows, read_state, shards_of

logger = get_logger(__name__)

_META_DAMAGED = "CKPT.yaml is not what was saved"


class RecentCheckpointer(Checkpointer):
    """The stock Checkpointer, safe against a kill while it saves, that also
    keeps the last few ends of epochs for averaging.

    The stock one writes a checkpoint's meta file first, so that a half-written
    checkpoint counts as one. Here a checkpoint is written under a folder
    ``partial`` and renamed when it's whole, and moved there to be deleted.
    It has checksums, and one that they don't fit is moved to ``damaged``.

    Arguments
    ---------
    checkpoints_dir : str or pathlib.Path
    keep_epochs : int
        Ends of epochs to keep, beside what the recipe asks to keep.
    pretrainer : AveragedPretrainer
        What a run starts from that has no checkpoint yet; None, or one
        without a path: from scratch.
    **options : dict
        For the stock Checkpointer, e.g. recoverables.

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
        checkpoints_dir: str | pathlib.Path,
        keep_epochs: int = 5,
        pretrainer: "AveragedPretrainer | None" = None,
        **options: Any,
    ) -> None:
        super().__init__(checkpoints_dir, **options)
        if keep_epochs < 1:
            raise InputError(
                f"keep_epochs is {keep_epochs}, expected at least 1"
            )
        self.keep_epochs = keep_epochs
        self.pretrainer = pretrainer

    def recover_if_possible(
        self, *args: Any, **kwargs: Any
    ) -> Checkpoint | None:
        """As the stock method, from one that is whole; without a checkpoint,
        from the pretrainer.

        Raises
        ------
        InputError
            If there are checkpoints, and none is whole.
        """
        if if_main_process():
            self._set_damaged_aside(*args, **kwargs)
        ddp_barrier()
        checkpoint = super().recover_if_possible(*args, **kwargs)
        pretrainer = self.pretrainer
        if checkpoint is None and pretrainer and pretrainer.path is not None:
            pretrainer.load_collected()
            logger.info(
                f"Starting from {pretrainer.path}: "
                f"{', '.join(pretrainer.loadables)}."
            )
        return checkpoint

    def save_checkpoint(
        self,
        meta: dict[str, Any] | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """As the stock method; the checkpoint appears when it's whole.

        Raises
        ------
        OSError
            If it can't be written: names the file. What there was stays.
        """
        partial = self.checkpoints_dir / "partial"
        if if_main_process():  # what a kill left
            for left in (partial, partial.with_name("given_up")):
                if left.exists():
                    shutil.rmtree(left)
        ddp_barrier()
        stage = Checkpointer(
            partial,
            custom_save_hooks=self.custom_save_hooks,
            recoverables=self.recoverables,
        )
        meta = {"unixtime": self._later_than_all(), **(meta or {})}
        try:
            with naming_the_file(lambda: _newest_file(partial)):
                saved = stage.save_checkpoint(
                    meta, end_of_epoch, name, verbosity=logging.DEBUG
                )
                ddp_barrier()  # every process has written its part
                whole = self._publish(saved, name, verbosity) if saved else None
        except (OSError, RuntimeError) as error:
            if not if_main_process():
                if not partial.exists():
                    raise GivenUp("the main process could not save") from error
            elif isinstance(error, OSError):
                # What is left to do may need the space. At once, since the
                # others look whether it is there.
                given_up = partial.with_name("given_up")
                os.replace(partial, given_up)
                shutil.rmtree(given_up, ignore_errors=True)
            raise
        ddp_barrier()  # nobody looks for checkpoints before it's there
        return whole

    def _later_than_all(self) -> float:
        """The time, but after that of every checkpoint: they are ordered by it
        and clocks are put back.
        """
        newest = self.find_checkpoint()
        return max(time.time(), newest.meta["unixtime"] + 1e-3 if newest else 0)

    def _publish(
        self, saved: Checkpoint, name: str | None, verbosity: int
    ) -> Checkpoint:
        final = self.checkpoints_dir / saved.path.name
        if final.exists() and name is None:
            final = self._new_checkpoint_dirpath()
        elif final.exists():
            self._discard(final)
        write_sums(saved.path)
        os.replace(saved.path, final)
        logger.log(verbosity, f"Saved a checkpoint in {final}")
        files = {key: final / f.name for key, f in saved.paramfiles.items()}
        return Checkpoint(final, saved.meta, files)

    def save_and_keep_only(
        self,
        meta: dict[str, Any] | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        num_to_keep: int = 1,
        keep_recent: bool = True,
        importance_keys: Collection[Callable[[Checkpoint], float]] = (),
        max_keys: Collection[str] = (),
        min_keys: Collection[str] = (),
        ckpt_predicate: Callable[[Checkpoint], bool] | None = None,
        verbosity: int = logging.INFO,
    ) -> None:
        """As the stock method; the last ends of epochs survive."""
        self.save_checkpoint(meta, end_of_epoch, name, verbosity)
        ends = {"ckpt_predicate": lambda c: c.meta["end-of-epoch"]}
        wanted: list[tuple[int, dict[str, Any]]] = [(self.keep_epochs, ends)]
        wanted += [(num_to_keep, {"min_key": key}) for key in min_keys]
        wanted += [(num_to_keep, {"max_key": key}) for key in max_keys]
        wanted += [
            (num_to_keep, {"importance_key": key}) for key in importance_keys
        ]
        wanted += [(num_to_keep, {})] if keep_recent else []
        if if_main_process():  # which alone looks at what it deletes
            self._keep_only(wanted, ckpt_predicate, verbosity)
        ddp_barrier()

    def _keep_only(
        self,
        wanted: list[tuple[int, dict[str, Any]]],
        ckpt_predicate: Callable[[Checkpoint], bool] | None,
        verbosity: int,
    ) -> None:
        kept = {
            checkpoint.path
            for count, by in wanted
            for checkpoint in self.find_checkpoints(
                max_num_checkpoints=count, **by
            )
        }
        for checkpoint in self.list_checkpoints():
            if checkpoint.path not in kept and (
                ckpt_predicate is None or ckpt_predicate(checkpoint)
            ):
                self._discard(checkpoint.path)
                logger.log(verbosity, f"Deleted {checkpoint.path}")

    def list_checkpoints(self) -> list[Checkpoint]:
        """As the stock method, without those whose meta file is damaged."""
        return self._construct_checkpoint_objects(
            [path for path in self._list_checkpoint_dirs() if _read_meta(path)]
        )

    def _set_damaged_aside(self, *args: Any, **kwargs: Any) -> None:
        """Moves the damaged ones that would be recovered before a whole one."""
        whole, damaged = None, {}
        for checkpoint in self.find_checkpoints(*args, **kwargs):
            damage = find_damage(checkpoint.path)
            if not damage:
                whole = checkpoint.path
                break
            damaged[checkpoint.path] = damage
        for path in _folders(self.checkpoints_dir):
            if _read_meta(path) is None:
                damaged[path] = _META_DAMAGED
        if damaged and whole is None:
            path, damage = next(iter(damaged.items()))
            raise InputError(
                f"{self.checkpoints_dir} has no checkpoint that is whole: in "
                f"{path.name} {damage}; put a copy back, or pass another "
                "--output_folder"
            )
        for path, damage in damaged.items():
            aside = self.checkpoints_dir / "damaged" / path.name
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():
                shutil.rmtree(aside)
            os.replace(path, aside)
            logger.warning(
                f"{path} is damaged ({damage}): moved to {aside}, going on "
                f"from {whole}"
            )

    def _discard(self, path: pathlib.Path) -> None:
        """Deletes a checkpoint, of which a kill leaves all or nothing."""
        partial = self.checkpoints_dir / "partial"
        partial.mkdir(exist_ok=True)
        os.replace(path, partial / f"deleted {path.name}")
        shutil.rmtree(partial / f"deleted {path.name}")


def _folders(checkpoints_dir: str | pathlib.Path) -> list[pathlib.Path]:
    return [
        p for p in pathlib.Path(checkpoints_dir).glob("CKPT*") if p.is_dir()
    ]


def _read_meta(path: pathlib.Path) -> dict[str, Any] | None:
    """The meta of a checkpoint, None where it has none that is whole.

    Unlike the stock Checkpointer of some releases, it reads what may come
    from somebody else without running what is in it.
    """
    try:
        meta = yaml.safe_load((path / "CKPT.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    known = isinstance(meta, dict) and "end-of-epoch" in meta
    return meta if known and is_finite(meta.get("unixtime")) else None


def _newest_file(folder: pathlib.Path) -> pathlib.Path:
    ages = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process' now
            if path.is_file():
                status = path.stat()
                # Of one tick of the clock it's the one that grew till it failed
                ages[path] = status.st_mtime_ns, status.st_size
    return max(ages, key=ages.__getitem__, default=folder)


def find_epochs(
    checkpoints_dir: str | pathlib.Path, count: int
) -> list[pathlib.Path]:
    """The last whole checkpoints that were made at the end of an epoch.

    Those that are damaged are named in a warning.

    Arguments
    ---------
    checkpoints_dir : str or pathlib.Path
        The save folder of a training run.
    count : int

    Returns
    -------
    folders : list of pathlib.Path
        At most count, the newest first.
    """
    found = {path: _read_meta(path) for path in _folders(checkpoints_dir)}
    metas = {path: meta for path, meta in found.items() if meta}
    ends = [path for path, meta in metas.items() if meta["end-of-epoch"]]
    ends.sort(key=lambda path: metas[path]["unixtime"], reverse=True)
    damages = {path: _META_DAMAGED for path in found if path not in metas}
    whole: list[pathlib.Path] = []
    for path in ends:
        if len(whole) == count:
            break
        damage = find_damage(path)
        if damage:
            damages[path] = damage
        else:
            whole.append(path)
    for path, damage in damages.items():
        logger.warning(f"{path} is left out, it is damaged: {damage}")
    return whole


def average_epochs(
    checkpoints_dir: str | pathlib.Path,
    count: int = 5,
    name: str = "embedding_model",
    shards: dict[str, Rows] | None = None,
) -> dict[str, torch.Tensor]:
    """The mean of the parameters at the last ends of epochs.

    Arguments
    ---------
    checkpoints_dir : str or pathlib.Path
        The save folder of a training run.
    count : int
        How many; published: 5. Fewer are averaged where there are fewer.
    name : str
        The recoverable.
    shards : dict
        Name of a parameter -> ``sharded_state.Rows`` to read; None: all.

    Returns
    -------
    state : dict
        A state dict on the CPU, each tensor in its own dtype.

    Raises
    ------
    InputError
        If there is none.
    """
    return _average(_epochs_of(checkpoints_dir, count), name, shards)


def _average(
    folders: list[pathlib.Path], name: str, shards: dict[str, Rows] | None
) -> dict[str, torch.Tensor]:
    newest = read_state(folders[0] / f"{name}.ckpt", shards)
    mean = average_state_dicts(
        read_state(folder / f"{name}.ckpt", shards) for folder in folders
    )
    # The stock average makes the batch counts of BatchNorm floating point.
    return {key: mean[key].to(newest[key].dtype) for key in newest}


def _epochs_of(
    checkpoints_dir: str | pathlib.Path, count: int
) -> list[pathlib.Path]:
    folders = find_epochs(checkpoints_dir, count)
    if not folders:
        raise InputError(
            f"{checkpoints_dir} has no checkpoint of a finished epoch: train "
            "first, or pass the folder of a run as --pretrain_path"
        )
    return folders


class AveragedPretrainer(Pretrainer):
    """The stock Pretrainer, for the mean of a training run's last epochs.

    Arguments
    ---------
    path : str or pathlib.Path
        The save folder of a training run, or an exported model folder, which
        holds ``embedding_model.ckpt``. None leaves the modules untrained.
    count : int
        Epochs to average.
    loadables : mapping
        Recoverable name -> module.
    names : list of str
        Those of the loadables to load; None: all.

    Raises
    ------
    InputError
        If one of the names is not among the loadables.

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
    >>> pretrainer.collect_files()
    >>> pretrainer.load_collected()
    """

    def __init__(
        self,
        path: str | pathlib.Path | None,
        count: int = 5,
        loadables: Mapping[str, torch.nn.Module] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        loadables = loadables or {}
        for name in names or ():
            if name not in loadables:
                raise InputError(
                    f"pretrain_modules has {name}, expected some of "
                    f"{', '.join(loadables)}"
                )
        if names is not None:
            loadables = {name: loadables[name] for name in names}
        super().__init__(loadables=loadables)
        self.path = path
        self.count = count

    def collect_files(self, *args: Any, **kwargs: Any) -> None:
        """Checks that there is something to load: the files are local."""
        if self.path is None:
            return
        if not _is_exported(self.path):
            _epochs_of(self.path, 1)
            return
        for name in self.loadables:
            if not _file_of(self.path, name).is_file():
                raise InputError(
                    f"{self.path} has no {name}: pass the save folder of its "
                    "training run as --pretrain_path, or to start from what it "
                    'has --pretrain_modules="[embedding_model]"'
                )

    def load_collected(self, *args: Any, **kwargs: Any) -> None:
        """Loads the modules, averaging where there is a choice of epochs."""
        if self.path is None:
            logger.warning("No pretrain_path: the encoder is untrained.")
            return
        if _is_exported(self.path):
            self.collect_files()
        else:  # their checksums are computed once for all modules
            folders = _epochs_of(self.path, self.count)
        for name, module in self.loadables.items():
            shards = shards_of(module)
            if _is_exported(self.path):
                state = read_state(_file_of(self.path, name), shards)
            else:
                state = _average(folders, name, shards)
            _fill(name, module, state, self.path)


def _file_of(path: str | pathlib.Path, name: str) -> pathlib.Path:
    return pathlib.Path(path) / f"{name}.ckpt"


def _is_exported(path: str | pathlib.Path) -> bool:
    """An exported folder has the files that a checkpoint has."""
    return any(pathlib.Path(path).glob("*.ckpt"))


def _fill(
    name: str,
    module: torch.nn.Module,
    state: dict[str, torch.Tensor],
    path: str | pathlib.Path,
) -> None:
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    wanted = {k: tuple(value.shape) for k, value in module.state_dict().items()}
    for key in wanted | shapes:
        if shapes.get(key) != wanted.get(key):
            raise InputError(
                f"{path} is of another {name}: its {key} is "
                f"{shapes.get(key, 'missing')}, the hparams file's "
                f"{wanted.get(key, 'missing')}; give what was overridden in "
                "its training here too (to the verification inside --training, "
                "as --training='{key: value}')"
            )
    broken = [key for key, v in state.items() if not v.isfinite().all()]
    if broken:
        raise InputError(
            f"{path} has values in {name} {broken[0]} that are not finite: its "
            "training has diverged"
        )
    module.load_state_dict(state)
