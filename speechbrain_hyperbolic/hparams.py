"""Hparams files: loaded with one-line errors, saved and compared by run."""

import difflib
import io
import pathlib
import re
import shutil
import traceback
from collections.abc import Iterable
from typing import Any

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from hyperpyyaml.core import recursive_update

from speechbrain_hyperbolic.dataio.files import StrPath, existing, write_text
from speechbrain_hyperbolic.errors import InputError, message_of, shown

HPARAMS = "hyperparams.yaml"  # in a run's output folder and a model folder

# How HyperPyYAML's messages about tags begin
_TAG_ERROR = re.compile(
    "There is no such (class|entity|module|callable) as |Invalid argument to "
    "|!(new|name|module|apply|applyref):|Cannot pass args to module"
)


def load_hparams(path: StrPath, overrides: str | dict = "") -> dict:
    """Loads a HyperPyYAML file as SpeechBrain does, with one-line errors."""
    text = _resolved_text(path, overrides)
    try:
        return load_hyperpyyaml(text)
    except (ImportError, TypeError, ValueError) as error:
        if not _TAG_ERROR.match(str(error.args[0] if error.args else "")):
            raise  # raised by the class itself
        raise InputError(f"{path}: {message_of(error)}") from error
    except AssertionError as error:  # how SpeechBrain's modules refuse values
        *_, (file, _, _, code) = traceback.extract_tb(error.__traceback__)
        file = pathlib.Path(file).name
        raise InputError(f"{path}: {file} refuses values: {code}") from error
    except ruamel.yaml.constructor.ConstructorError as error:
        raise InputError(f"{path}: {shown(str(error.problem))}") from error


def read_settings(path: StrPath, overrides: str | dict = "") -> dict[str, Any]:
    """The keys that are plain values, resolved; no object is made."""
    scalars = str, int, float, type(None)
    settings = {}
    for key, node in _parse(_resolved_text(path, overrides), path).items():
        items = node if isinstance(node, list) else [node]
        if tag_of(node):
            settings[key] = tag_of(node)
        elif all(isinstance(item, scalars) for item in items):
            settings[key] = node
    return settings


def read_overrides(overrides: str) -> dict[str, Any]:
    """The keys that a command line overrides, as YAML nodes."""
    # As from an unset variable of the shell
    if empty := re.search(r"^([\w-]+): *$(?!\n[ -])", overrides, re.MULTILINE):
        raise InputError(f"--{empty[1]} has no value: give one, or null")
    return _parse(overrides or "{}", "the command line")


def check_keys(path: StrPath, keys: Iterable[str], use: str) -> None:
    """Refuses a file that was written for another script."""
    nodes = read_nodes(path)
    for key in keys:
        if key not in nodes:
            raise InputError(f"{path} has no {key}, expected a file for {use}")


def find_hparams(path: StrPath, script: StrPath) -> pathlib.Path:
    """The file, or else the one of that name that comes with a script."""
    given = pathlib.Path(path)
    folders = pathlib.Path(script).resolve().parents[:3]
    files = [given, *(folder / "hparams" / given.name for folder in folders)]
    return next((file for file in files if file.is_file()), given)


def read_nodes(path: StrPath) -> dict:
    """The top-level keys of a file as YAML nodes, tags included."""
    path = existing(path, "hparams file")
    nodes = _parse(path.read_bytes(), path)
    if not isinstance(nodes, dict):
        raise InputError(f"{path} has no keys, expected 'key: value' lines")
    return nodes


def tag_of(node: Any) -> str:
    """The tag of a YAML node, e.g. "!new:torch.nn.Linear"; "" without one."""
    tag = getattr(node, "tag", None)
    return tag.value or "" if tag else ""


def save_resolved(
    hparams_file: StrPath, overrides: str | dict, output_folder: StrPath
) -> None:
    """Writes a run's hyperparams.yaml, whole even if the process is killed."""
    text = _resolved_text(hparams_file, overrides)
    text = f"# Generated from {pathlib.Path(hparams_file).resolve()}\n{text}"
    write_text(pathlib.Path(output_folder) / HPARAMS, text)


def copy_recipes(folder: StrPath) -> pathlib.Path:
    """Copies recipes to a new folder, with the hparams beside the scripts."""
    folder = pathlib.Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists: name a new folder")
    package = pathlib.Path(__file__).parent
    in_wheel = (package / "recipes").is_dir()  # made by setup.py
    root = package if in_wheel else package.parent
    ignore = shutil.ignore_patterns("__pycache__", "__init__.py", "results")
    shutil.copytree(root / "recipes", folder, ignore=ignore)
    if not in_wheel:
        shutil.copytree(root / "hparams", folder / "VoxCeleb" / "hparams")
    return folder


def _resolved_text(path: StrPath, overrides: str | dict) -> str:
    nodes = read_nodes(path)
    if isinstance(overrides, str):
        overrides = read_overrides(overrides)
    if not isinstance(overrides, dict):
        raise InputError(f"{path}: expected options of the form --key=value")
    for key, value in overrides.items():
        _override(path, nodes, key, value)
    for key, node in nodes.items():
        if tag_of(node) == "!PLACEHOLDER":
            demo = ", or run 'make demo' for a synthetic corpus"
            hint = demo if key == "data_folder" else ""
            raise InputError(f"{path} needs {key}: pass --{key}=/path{hint}")
    file = io.StringIO()
    file.name = str(path)  # type: ignore[attr-defined] # for !include
    try:
        ruamel.yaml.YAML().dump(nodes, file)
        file.seek(0)
        return resolve_references(file).getvalue()
    except Exception as error:  # no such key, a circle, a division by zero, ...
        line = f"{path} cannot be resolved: {message_of(error)}"
        raise InputError(line) from error


def _override(path: StrPath, nodes: dict, key: str, value: Any) -> None:
    if key not in nodes:
        initials = "".join(word[:1] for word in str(key).split("_"))
        close = [n for n in nodes if n == initials]  # learning_rate: lr
        close = close or difflib.get_close_matches(str(key), map(str, nodes))
        close = close or [n for n in nodes if str(n).endswith(f"_{key}")]
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"{path} has no key {shown(str(key))}{hint}")
    node = nodes[key]
    # An object in place of a number is fine: a margin can be a schedule.
    fits = value is None or tag_of(value) or _is_number(value)
    if _is_number(node) and not fits:
        raise InputError(
            f"{path}: {key} is {shown(str(value))}, expected a number like "
            f"{node}"
        )
    if all(isinstance(x, dict) for x in (node, value)) and not tag_of(value):
        recursive_update(node, value)
    else:
        nodes[key] = value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _parse(text: str | bytes, name: StrPath) -> Any:
    try:
        return ruamel.yaml.YAML().load(text)
    except ruamel.yaml.constructor.DuplicateKeyError as error:
        key = shown(str(error.problem).split('"')[1])
        raise InputError(f"{name} has {key} twice: give it once") from error
    except ruamel.yaml.YAMLError as error:
        message = message_of(error)
        raise InputError(f"{name} is not valid YAML: {message}") from error
