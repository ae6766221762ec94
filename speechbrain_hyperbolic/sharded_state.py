"""Files of what is spread over processes: a head's centres, and their state.

``name.ckpt`` has what all processes have alike, and which rows are where; the
rows are in ``name.ckpt.1-of-4`` and so on, one file for each process. Without
rows to spread it is the file that SpeechBrain writes. Whoever reads a
classifier's or an optimizer's file reads it by ``read_state``: any number of
processes reads what any number has written, each the rows that it needs.
The processes have to see one file system.
"""

import copy
import itertools
import pathlib
import pickle
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from speechbrain.utils.distributed import ddp_broadcast, if_main_process

from speechbrain_hyperbolic.errors import InputError

# The keys on the way to what is in a tree of dicts
_Place = tuple[Any, ...]


# The key of the layout in a file that has shards beside it
SHARDS = "shards"


class Rows(NamedTuple):
    """Which rows of a tensor this process has.

    Arguments
    ---------
    part : int
        The process, from 0.
    bounds : list of int
        The first row of each process, and the number of rows.

    Example
    -------
    >>> rows = Rows(1, [0, 4, 7])
    >>> rows.first, rows.last, rows.total, rows.parts
    (4, 7, 7, 2)
    """

    part: int
    bounds: list[int]

    @property
    def first(self) -> int:
        """The first row."""
        return self.bounds[self.part]

    @property
    def last(self) -> int:
        """The row after the last one."""
        return self.bounds[self.part + 1]

    @property
    def total(self) -> int:
        """The number of rows of all processes."""
        return self.bounds[-1]

    @property
    def parts(self) -> int:
        """The number of processes."""
        return len(self.bounds) - 1


def _heads_of(module: torch.nn.Module) -> dict[str, Any]:
    """The sharded heads in a module: prefix of their parameters -> head."""
    return {
        f"{name}." if name else "": part
        for name, part in module.named_modules()
        if isinstance(getattr(part, "rows", None), Rows)
    }


def shards_of(module: torch.nn.Module) -> dict[str, Rows]:
    """The parameters of which this process has some rows.

    Arguments
    ---------
    module : torch.nn.Module

    Returns
    -------
    shards : dict
        Name in the module's state -> Rows.

    Example
    -------
    >>> shards_of(torch.nn.Linear(1, 1))
    {}
    """
    return {f"{p}weight": head.rows for p, head in _heads_of(module).items()}


def save_module(module: torch.nn.Module, path: str | pathlib.Path) -> None:
    """Saves a classifier: a hook of SpeechBrain's checkpointer.

    All processes call it.

    Arguments
    ---------
    module : torch.nn.Module
        With sharded heads or without.
    path : str or pathlib.Path
    """
    shards = {(name,): rows for name, rows in shards_of(module).items()}
    draws = {
        prefix: head.draws
        for prefix, head in _heads_of(module).items()
        if head.sampled is not None
    }
    _write(module.state_dict(), path, shards, {"draws": draws} if draws else {})


def load_module(
    module: torch.nn.Module, path: str | pathlib.Path, end_of_epoch: bool = True
) -> None:
    """Loads a classifier: a hook of SpeechBrain's checkpointer.

    Arguments
    ---------
    module : torch.nn.Module
        With sharded heads or without, whatever the file is of.
    path : str or pathlib.Path
    end_of_epoch : bool
        Not used.
    """
    shards = {(name,): rows for name, rows in shards_of(module).items()}
    state, layout = _read(path, shards)
    module.load_state_dict(state)
    for prefix, head in _heads_of(module).items():
        head.draws.update(layout.get("draws", {}).get(prefix, {}))


def save_optimizer(
    optimizer: torch.optim.Optimizer,
    path: str | pathlib.Path,
    modules: torch.nn.Module,
) -> None:
    """Saves an optimizer: a hook of SpeechBrain's checkpointer.

    All processes call it.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
    path : str or pathlib.Path
    modules : torch.nn.Module
        What it optimizes.
    """
    state = optimizer.state_dict()
    parameters = _parameters(optimizer)
    shards = {
        ("state", index, key): rows
        for index, rows in _sharded(parameters, modules).items()
        for key, value in state["state"].get(index, {}).items()
        if getattr(value, "shape", None) == parameters[index].shape
    }
    _write(state, path, shards)


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    path: str | pathlib.Path,
    end_of_epoch: bool = True,
    *,
    modules: torch.nn.Module,
) -> None:
    """Loads an optimizer: a hook of SpeechBrain's checkpointer.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
    path : str or pathlib.Path
    end_of_epoch : bool
        Not used.
    modules : torch.nn.Module
        What it optimizes.
    """
    shards = {
        ("state", index): rows
        for index, rows in _sharded(_parameters(optimizer), modules).items()
    }
    # The optimizer would keep what is mapped, and write to it.
    optimizer.load_state_dict(copy.deepcopy(_read(path, shards)[0]))


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """In the order in which its state counts them."""
    return list(
        itertools.chain(*(group["params"] for group in optimizer.param_groups))
    )


def _sharded(
    parameters: list[torch.nn.Parameter], modules: torch.nn.Module
) -> dict[int, Rows]:
    """Index of a parameter -> its rows."""
    by_id = {id(head.weight): head.rows for head in _heads_of(modules).values()}
    return {
        index: by_id[id(parameter)]
        for index, parameter in enumerate(parameters)
        if id(parameter) in by_id
    }


def read_state(
    path: str | pathlib.Path, shards: dict[str, Rows] | None = None
) -> dict[str, torch.Tensor]:
    """The state of a module, wherever its rows are.

    Arguments
    ---------
    path : str or pathlib.Path
        The file of a checkpoint; other files of it are read where it says so.
    shards : dict
        Name of a parameter -> Rows, the ones to read; None: all.

    Returns
    -------
    state : dict
        A state dict on the CPU.

    Raises
    ------
    InputError
        If a file of rows is missing, damaged or of another checkpoint.

    Example
    -------
    >>> path = getfixture("tmpdir") / "classifier.ckpt"
    >>> save_module(torch.nn.Linear(1, 1), path)
    >>> sorted(read_state(path))
    ['bias', 'weight']
    """
    wanted = {(name,): rows for name, rows in (shards or {}).items()}
    return _read(path, wanted)[0]


def _file_of(path: str | pathlib.Path, part: int, parts: int) -> pathlib.Path:
    path = pathlib.Path(path)
    return path.with_name(f"{path.name}.{part + 1}-of-{parts}")


def _write(
    tree: dict[str, Any],
    path: str | pathlib.Path,
    shards: Mapping[_Place, Rows],
    layout: dict[str, Any] | None = None,
) -> None:
    """A tree of dicts; shards: path of a tensor in it -> Rows."""
    layout = dict(layout or {})
    shards = {at: rows for at, rows in shards.items() if rows.parts > 1}
    if shards:
        # The files of two checkpoints don't go together.
        layout["token"] = ddp_broadcast(secrets.randbits(62))
        tensors = [_take(tree, at) for at in shards]
        layout["tensors"] = [
            (list(at), rows.bounds, list(tensor.shape[1:]), tensor.dtype)
            for (at, rows), tensor in zip(shards.items(), tensors, strict=True)
        ]
        rows = next(iter(shards.values()))
        # Of a view torch would save all that it's a view of.
        tensors = [tensor.detach().clone() for tensor in tensors]
        torch.save(
            {"token": layout["token"], "tensors": tensors},
            _file_of(path, rows.part, rows.parts),
        )
    if if_main_process():
        torch.save(tree | {SHARDS: layout} if layout else tree, path)


def _take(tree: dict, at: _Place) -> torch.Tensor:
    """Takes a tensor out of a tree, which is the caller's own but for it."""
    for key in at[:-1]:
        tree[key] = dict(tree[key])
        tree = tree[key]
    return tree.pop(at[-1])


def _read(
    path: str | pathlib.Path, wanted: Mapping[_Place, Rows]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tree, and its layout; wanted: path, or its beginning -> Rows."""
    # Mapped, so that rows which aren't asked for are not read.
    tree = _load(path, mmap=bool(wanted))
    layout = tree.pop(SHARDS, {})
    for at, rows in wanted.items():
        _cut(tree, at, rows, path)
    entries = layout.get("tensors", [])
    found = {}
    for number, (at, bounds, shape, dtype) in enumerate(entries):
        rows = _of(wanted, tuple(at)) or Rows(0, [0, bounds[-1]])
        _check_total(path, at, bounds[-1], rows)
        size = rows.last - rows.first
        found[number] = rows, torch.empty(size, *shape, dtype=dtype)
    parts = max((len(entry[1]) - 1 for entry in entries), default=0)
    for part in range(parts):
        needed = []
        for number, (rows, _) in found.items():
            first, last = entries[number][1][part : part + 2]
            begin, end = max(first, rows.first), min(last, rows.last)
            if begin < end:
                needed.append((number, first, last, begin, end))
        if not needed:
            continue
        # The stock Pretrainer links to the first file alone.
        file = _file_of(pathlib.Path(path).resolve(), part, parts)
        tensors = _open(file, layout["token"])
        for number, first, last, begin, end in needed:
            rows, values = found[number]
            there = tensors[number]
            if there.shape != (last - first, *values.shape[1:]):
                raise InputError(
                    f"{file} has a tensor of shape {tuple(there.shape)} where "
                    f"{path} says {(last - first, *values.shape[1:])}: remove "
                    "its checkpoint"
                )
            values[begin - rows.first : end - rows.first] = there[
                begin - first : end - first
            ]
    for number, (_, values) in found.items():
        *above, key = entries[number][0]
        node = tree
        for name in above:
            node = node[name]
        node[key] = values
    return tree, layout


def _of(wanted: Mapping[_Place, Rows], at: _Place) -> Rows | None:
    for beginning, rows in wanted.items():
        if at[: len(beginning)] == beginning:
            return rows
    return None


def _cut(tree: dict, at: _Place, rows: Rows, path: str | pathlib.Path) -> None:
    """Keeps, of what is whole at or below a path of the tree, some rows."""
    for key in at[:-1]:
        tree = tree.get(key, {})
    values = tree.get(at[-1])
    if isinstance(values, dict):
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                _cut(values, (key,), rows, path)
    elif values is not None:
        _check_total(path, at, len(values), rows)
        tree[at[-1]] = values[rows.first : rows.last].clone()


def _check_total(
    path: str | pathlib.Path, at: _Place, there: int, rows: Rows
) -> None:
    if there != rows.total:
        raise InputError(
            f"{path} has {there} rows in {'.'.join(map(str, at))}, expected "
            f"{rows.total}: it is of another number of speakers or sub-centres"
        )


def _open(file: pathlib.Path, token: int) -> list[torch.Tensor]:
    """The tensors of a shard."""
    try:
        shard = _load(file, mmap=True)
        there, tensors = shard["token"], shard["tensors"]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file} is no shard: remove its checkpoint"
        ) from error
    if there != token:
        raise InputError(
            f"{file} is of another checkpoint than the files beside it: remove "
            "their checkpoint"
        )
    return tensors


def _load(path: str | pathlib.Path, mmap: bool) -> dict[str, Any]:
    try:
        return torch.load(path, "cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} is missing: the checkpoint is incomplete, put a copy back "
            "or remove it"
        ) from error
    # ValueError: too short to be mapped
    except (
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise InputError(
            f"{path} is damaged ({str(error).splitlines()[0]}): put a copy "
            "back, or remove its checkpoint"
        ) from error
