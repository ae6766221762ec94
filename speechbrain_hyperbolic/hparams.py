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
import itertools
import math
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import ruamel.yaml
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError, shown

INCLUDE = "!include:"
HPARAMS = "hyperparams.yaml"  # of a run, and of a model folder
# Twice and more those of any stock recipe; a file of as many takes seconds.
_MOST_CHARACTERS = 50_000
_MOST_VALUES = 4_000  # and keys
_MOST_BRACKETS = 100  # one in the other


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
        If the file is missing or not YAML, a !PLACEHOLDER is not replaced, an
        override names no key of the file or has not its shape, as what is no
        number where the file has one, or a tag names nothing that can be
        imported, or does not fit it.
    """
    overrides = nest_overrides(path, overrides)
    _check_keys(pathlib.Path(path), overrides)
    text = _resolve(path, overrides)
    with _valid_yaml(path):
        try:
            return load_hyperpyyaml(text)
        except (ImportError, TypeError, ValueError) as error:
            if not _OF_A_TAG.match(str(error.args[0] if error.args else "")):
                raise  # of what was called
            raise InputError(f"{path}: {_one_line(error)}") from error


# How messages of HyperPyYAML begin.
_OF_A_TAG = re.compile(
    "There is no such (class|entity|module|callable) as |Invalid argument to "
    "|!(new|name|module|apply|applyref):|Cannot pass args to module"
)


def _resolve(path: str | pathlib.Path, overrides: str | dict) -> str:
    """The text without references; whatever fails is the file's fault."""
    try:
        with _valid_yaml(path), open(path, encoding="utf-8") as file:
            return resolve_references(file, overrides).getvalue()
    except InputError:
        raise
    except Exception as error:
        if "!PLACEHOLDER" in str(error):
            line = _what_is_missing(path, overrides)
        elif "structure of the overrides" in str(error):
            line = f"{path} has no mapping where an override is one: "
            line += shown(str(error.args[1]))
        else:  # a reference to no key or in a circle, a division by zero, ...
            line = f"{path} can't be resolved: {_one_line(error)}"
        raise InputError(line) from error


def _one_line(error: Exception) -> str:
    text = " ".join(" ".join(map(str, error.args)).split())
    return shown(text or type(error).__name__, most=200)


def _what_is_missing(path: str | pathlib.Path, overrides: str | dict) -> str:
    missing = [
        key
        for key, node in _read(pathlib.Path(path)).items()
        if tag_of(node) == "!PLACEHOLDER" and key not in overrides
    ]
    if missing and "data_folder" not in missing:
        key = shown(missing[0])
        return f"{path} needs {key}: pass --{key}=/path"
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
    has = _is_flattened(tree) and "recipe" in tree
    if not (has and isinstance(given, dict)):
        return dict(every)
    moves = _keys_below(path, tree.get("recipe")) - set(tree)
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
    return _flat(_parse(_resolve(path, overrides), path), path)


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
    return _flat(_read(pathlib.Path(path)), path)


@contextlib.contextmanager
def _valid_yaml(name: str | pathlib.Path) -> Iterator[None]:
    try:
        yield
    except ruamel.yaml.constructor.DuplicateKeyError as error:
        key = str(error.problem).split('"')[1]
        raise InputError(
            f"{name} has {shown(key)} twice: give it once"
        ) from error
    except (ruamel.yaml.YAMLError, yaml.YAMLError) as error:
        message = shown(" ".join(str(error).split()), most=200)
        raise InputError(f"{name} is not valid YAML: {message}") from error


def _parse(text: str, name: str | pathlib.Path) -> Any:
    if len(text) > _MOST_CHARACTERS:
        raise InputError(
            f"{name} has {len(text)} characters, expected {_MOST_CHARACTERS} "
            "at most"
        )
    brackets = ((c in "[{") - (c in "]}") for c in text)
    if max(itertools.accumulate(brackets), default=0) > _MOST_BRACKETS:
        raise InputError(
            f"{name} has more than {_MOST_BRACKETS} brackets, one in the other"
        )
    with _valid_yaml(name):
        try:
            # Before values are made of them, which ruamel.yaml writes out
            # where a key is there twice.
            if _count(ruamel.yaml.YAML().compose(text), {}) <= _MOST_VALUES:
                return ruamel.yaml.YAML().load(text)
        except (ValueError, RecursionError) as error:  # "!!int x"; "- - - ..."
            raise InputError(
                f"{name} is not valid YAML: {shown(str(error))}"
            ) from error
    raise InputError(
        f"{name} has more than {_MOST_VALUES} keys and values, with those that "
        "its aliases repeat"
    )


def _count(node: ruamel.yaml.Node | None, counts: dict[int, float]) -> float:
    """How many keys and values there are, those of an alias each time.

    Of one that holds itself there is no end of them.
    """
    if not isinstance(node, ruamel.yaml.CollectionNode):
        return 1
    if id(node) not in counts:
        counts[id(node)] = math.inf  # while they are counted
        inner = node.value
        if isinstance(node, ruamel.yaml.MappingNode):
            inner = itertools.chain.from_iterable(node.value)
        counts[id(node)] = 1 + sum(_count(value, counts) for value in inner)
    return counts[id(node)]


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
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: save it as UTF-8") from error
    tree = _parse(text, path)
    if not isinstance(tree, dict):
        raise InputError(f"{path} has no keys: expected 'key: value' lines")
    _names(tree, path)
    return tree


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


def _flat(tree: Any, path: str | pathlib.Path) -> Any:
    if not _is_flattened(tree):
        return tree
    try:
        return flatten(**tree)
    except TypeError as error:
        raise InputError(
            f"{path} has no keys in 'recipe', expected those of another file"
        ) from error


def _names(tree: dict, path: str | pathlib.Path) -> set[str]:
    """The keys, where all of them are text."""
    for key in tree:
        if not isinstance(key, str):
            raise InputError(
                f"{path} has the key {shown(str(key))}, expected a name"
            )
    return set(tree)


def _keys_below(path: pathlib.Path, node: Any) -> set[str]:
    """Those of a mapping, and of the file that it includes."""
    keys = _names(node, path) if isinstance(node, dict) else set()
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
        known |= _keys_below(path, tree.get("recipe"))
    for name, value in overrides.items():
        if name not in tree:
            raise InputError(
                f"{path} has no key {shown(name)}{_hint(name, known)}"
            )
        _check_number(path, name, tree[name], value)
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
        _check_number(file, key, tree.get(key), value)
        if tag_of(tree.get(key)).startswith(INCLUDE):
            _check_included(file, key, tree[key], value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_number(path: pathlib.Path, key: str, node: Any, value: Any) -> None:
    fits = _is_number(value) or value is None or tag_of(value)
    if _is_number(node) and not fits:
        raise InputError(
            f"{path}: {shown(key)} is {shown(str(value))}, expected a number, "
            f"as the {node} there"
        )


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
    before_file = pathlib.Path(output_folder) / HPARAMS
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


def save_resolved(
    hparams_file: str | pathlib.Path,
    overrides: str | dict,
    output_folder: str | pathlib.Path,
) -> None:
    """Writes hyperparams.yaml, as the stock ``create_experiment_directory``.

    That one empties the file first, and a kill would leave it so.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
    overrides : str or dict
    output_folder : str or pathlib.Path
    """
    with atomic_path(pathlib.Path(output_folder) / HPARAMS) as temporary:
        text = f"# Generated from {pathlib.Path(hparams_file).resolve()}\n"
        text += _resolve(hparams_file, overrides)
        temporary.write_text(text, encoding="utf-8")


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
