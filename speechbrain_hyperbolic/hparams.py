"""Loads hparams files, with errors for people.

A file may state only how its system differs from another one's:

    --- !apply:speechbrain_hyperbolic.hparams.flatten
    data_folder: !PLACEHOLDER
    recipe: !include:ham_ecapa.yaml
        data_folder: !ref <data_folder>
        margin: 0.1

HyperPyYAML loads this as it is. A child of the include that is a sequence or
a scalar replaces that key of the other file; one that is a mapping is merged
into it, and the class stays. References are to this file: <recipe[margin]>.
"""

import contextlib
import difflib
import pathlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from speechbrain_hyperbolic.errors import InputError, shown

INCLUDE = "!include:"


def flatten(recipe: dict, **own: Any) -> dict:
    """One flat set of keys from an included file and what is beside it.

    It stays a plain function, which is all that !apply takes.

    Arguments
    ---------
    recipe : dict
        The keys of the included file.
    **own : dict
        Other keys, which come first.

    Returns
    -------
    hparams : dict

    Example
    -------
    >>> flatten(recipe={"margin": 0.2, "scale": 30}, margin=0.1)
    {'margin': 0.1, 'scale': 30}
    """
    return {**recipe, **own}


def load_hparams(path: str | pathlib.Path, overrides: str | dict = "") -> dict:
    """Loads a HyperPyYAML file.

    Arguments
    ---------
    path : str or pathlib.Path
    overrides : str or dict
        As ``speechbrain.parse_arguments`` gives them.

    Returns
    -------
    hparams : dict

    Raises
    ------
    InputError
        If the file is missing or not YAML, a !PLACEHOLDER is not replaced, or
        an override names no key of the file or has not its shape.
    """
    overrides = nest_overrides(path, overrides)
    _check_keys(pathlib.Path(path), overrides)
    with _resolvable(path, overrides), open(path, encoding="utf-8") as file:
        return load_hyperpyyaml(file, overrides)


@contextlib.contextmanager
def _resolvable(
    path: str | pathlib.Path, overrides: str | dict
) -> Iterator[None]:
    """Turns errors of HyperPyYAML that are the file's into those for people."""
    try:
        with _valid_yaml(path):
            yield
    except InputError:
        raise
    except ValueError as error:
        if "!PLACEHOLDER" in str(error):
            raise InputError(_what_is_missing(path, overrides)) from error
        if "structure of the overrides" in str(error):
            raise InputError(
                f"{path} has no mapping where an override is one: "
                f"{error.args[1]}"
            ) from error
        if "reference" in str(error):  # to no key, or in a circle
            raise InputError(
                f"{path}: {' '.join(map(str, error.args))}"
            ) from error
        raise


def _what_is_missing(path: str | pathlib.Path, overrides: str | dict) -> str:
    missing = [
        key
        for key, node in _read(pathlib.Path(path)).items()
        if tag_of(node) == "!PLACEHOLDER" and key not in overrides
    ]
    if missing and "data_folder" not in missing:
        return f"{path} needs {missing[0]}: pass --{missing[0]}=/path"
    return (
        f"{path} needs a corpus: pass --data_folder=/path/to/corpus "
        "(speaker/[session/]utterance.wav), or run 'make demo' in the top "
        "folder for a synthetic one"
    )


def nest_overrides(path: str | pathlib.Path, overrides: str | dict) -> dict:
    """Moves overrides to where HyperPyYAML looks for them.

    A file that is flattened takes overrides of its other file's keys in
    ``recipe``; with this they are given as those of any file.

    Arguments
    ---------
    path : str or pathlib.Path
    overrides : str or dict
        As ``speechbrain.parse_arguments`` gives them.

    Returns
    -------
    overrides : dict
        What is no key stays where it is.

    Raises
    ------
    InputError
        If the file is missing or not YAML, or the overrides are not.
    """
    path = pathlib.Path(path)
    tree = _read(path)
    every = overrides
    if isinstance(every, str):
        every = _parse_overrides(every, path)
    given = every.get("recipe") or {}
    if not (_is_flattened(tree) and isinstance(given, dict)):
        return dict(every)
    moves = _keys_below(path, tree["recipe"]) - set(tree)
    nested = {key: every[key] for key in every if key in moves}
    own = {key: every[key] for key in every if key not in moves}
    return {**own, "recipe": {**given, **nested}}


def resolve(path: str | pathlib.Path, overrides: str | dict) -> dict:
    """The keys of a file as YAML nodes, with all references resolved.

    Arguments
    ---------
    path : str or pathlib.Path
    overrides : str or dict
        As ``speechbrain.parse_arguments`` gives them.

    Returns
    -------
    nodes : dict
        Flat, as what ``load_hparams`` gives.

    Raises
    ------
    InputError
        If the file or the overrides are not YAML, or a !PLACEHOLDER is not
        replaced.
    """
    overrides = nest_overrides(path, overrides)
    with _resolvable(path, overrides), open(path, encoding="utf-8") as file:
        return _flat(_parse(resolve_references(file, overrides), path))


def read_nodes(path: str | pathlib.Path) -> dict:
    """The keys of a hyperparams file of a run, which is resolved, as nodes.

    Arguments
    ---------
    path : str or pathlib.Path

    Returns
    -------
    nodes : dict

    Raises
    ------
    InputError
        If it is missing, or no YAML with keys.
    """
    tree = _read(pathlib.Path(path))
    if not isinstance(tree, dict):
        raise InputError(f"{path} has no keys: expected a run's hyperparams")
    return _flat(tree)


@contextlib.contextmanager
def _valid_yaml(name: str | pathlib.Path) -> Iterator[None]:
    try:
        yield
    except ruamel.yaml.constructor.DuplicateKeyError as error:
        key = str(error.problem).split('"')[1]
        raise InputError(
            f"{name} has {shown(key)} twice: give it once"
        ) from error
    except ruamel.yaml.YAMLError as error:
        message = shown(" ".join(str(error).split()), most=200)
        raise InputError(f"{name} is not valid YAML: {message}") from error


def _parse(text: str, name: str | pathlib.Path) -> Any:
    with _valid_yaml(name):
        try:
            return ruamel.yaml.YAML().load(text)
        except (ValueError, RecursionError) as error:  # "!!int x"; "[[[[..."
            raise InputError(
                f"{name} is not valid YAML: {shown(str(error))}"
            ) from error


def _parse_overrides(text: str, path: str | pathlib.Path) -> dict[str, Any]:
    name = f"an option given to {path}"
    overrides = {} if not text.strip() else _parse(text, name)
    if not isinstance(overrides, dict) or not all(
        isinstance(key, str) for key in overrides
    ):
        raise InputError(f"{name} is not of the form --key=value")
    return overrides


def _read(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path} is missing: no such hparams file")
    return _parse(path.read_text(encoding="utf-8"), path)


def tag_of(node: Any) -> str:
    """The tag of a YAML node.

    Arguments
    ---------
    node : Any

    Returns
    -------
    tag : str
        E.g. "!new:torch.nn.Linear"; "" where there is none.
    """
    tag = getattr(node, "tag", None)
    return tag.value or "" if tag else ""


def _is_flattened(tree: Any) -> bool:
    return tag_of(tree) == f"!apply:{__name__}.flatten"


def _flat(tree: Any) -> Any:
    return flatten(**tree) if _is_flattened(tree) else tree


def _keys_below(path: pathlib.Path, node: Any) -> set[str]:
    """Those of a mapping, and of the file that it includes."""
    keys = set(node) if isinstance(node, dict) else set()
    if tag_of(node).startswith(INCLUDE):
        keys |= set(_read(path.resolve().parent / _included(node)))
    return keys


def _included(node: Any) -> str:
    return tag_of(node).removeprefix(INCLUDE)


def _check_keys(path: pathlib.Path, overrides: dict[str, Any]) -> None:
    """HyperPyYAML does not check those of an included file."""
    tree = _read(path)
    known = set(tree)
    if _is_flattened(tree):
        known |= _keys_below(path, tree["recipe"])
    for name, value in overrides.items():
        if name not in tree:
            raise InputError(
                f"{path} has no key {shown(name)}{_hint(name, known)}"
            )
        if tag_of(tree[name]).startswith(INCLUDE):
            _check_included(path, name, tree[name], value)


def _check_included(
    path: pathlib.Path, name: str, node: Any, overrides: Any
) -> None:
    if not isinstance(overrides or {}, dict):
        raise InputError(
            f"{path}: {name} is {shown(str(overrides))}, expected keys of "
            f'{_included(node)}, as in --{name}="{{key: value}}"'
        )
    keys = _keys_below(path, node)
    file = path.resolve().parent / _included(node)
    tree = _read(file)
    for key, value in (overrides or {}).items():
        if key not in keys:
            raise InputError(
                f"{path}: override {name}: {{{shown(str(key))}: ...}} is no "
                f"key of {_included(node)}{_hint(key, keys)}"
            )
        if tag_of(tree.get(key)).startswith(INCLUDE):
            _check_included(file, key, tree[key], value)


def _hint(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), known)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def check_same_run(
    hparams_file: str | pathlib.Path,
    overrides: str | dict,
    output_folder: str | pathlib.Path,
    may_change: Collection[str],
) -> None:
    """Refuses to go on with a run that was started with other settings.

    The settings are a file's scalars, lists of scalars, and the classes of
    what else it makes. The stock recipe keeps the file, resolved, in
    ``<output_folder>/hyperparams.yaml``.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
    overrides : str or dict
    output_folder : str or pathlib.Path
    may_change : collection of str
        Keys that do not change what is learnt.

    Raises
    ------
    InputError
        Names the first key that differs, and both its values.
    """
    before_file = pathlib.Path(output_folder) / "hyperparams.yaml"
    if not before_file.is_file():
        return
    before = _settings(read_nodes(before_file))
    now = _settings(resolve(hparams_file, overrides))
    for key in sorted(now.keys() | before.keys()):
        if key not in may_change and now.get(key) != before.get(key):
            raise InputError(
                f"{output_folder} holds a run with {key} {before.get(key)}, "
                f"and now it is {now.get(key)}: pass another --output_folder, "
                f"or --{key}={before.get(key)} to go on with that run"
            )


def _settings(nodes: dict[str, Any]) -> dict[str, Any]:
    scalars = (str, int, float, bool, type(None))
    settings = {}
    for key, node in nodes.items():
        items = node if isinstance(node, list) else [node]
        if tag_of(node):
            settings[key] = tag_of(node)
        elif all(isinstance(item, scalars) for item in items):
            settings[key] = node
    return settings
