"""Hparams files: loaded with one-line errors, saved and compared by run."""

import contextlib
import difflib
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import ruamel.yaml
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError, shown

HPARAMS = "hyperparams.yaml"  # in a run's output folder and a model folder

# How HyperPyYAML's messages about tags begin
_TAG_ERROR = re.compile(
    "There is no such (class|entity|module|callable) as |Invalid argument to "
    "|!(new|name|module|apply|applyref):|Cannot pass args to module"
)


def load_hparams(path: str | pathlib.Path, overrides: str | dict = "") -> dict:
    """Loads a HyperPyYAML file as SpeechBrain does, with errors for people.

    The overrides are a mapping, or text as ``speechbrain.parse_arguments``
    returns it.
    """
    text = _resolved_text(path, overrides)
    with _valid_yaml(path):
        try:
            return load_hyperpyyaml(text)
        except (ImportError, TypeError, ValueError) as error:
            if not _TAG_ERROR.match(str(error.args[0] if error.args else "")):
                raise  # by the code of the class itself
            raise InputError(f"{path}: {_one_line(error)}") from error


def find_hparams(
    path: str | pathlib.Path, script: str | pathlib.Path
) -> pathlib.Path:
    """The file, or else the one of that name that comes with a script."""
    given = pathlib.Path(path)
    folders = pathlib.Path(script).resolve().parents[:3]
    files = [given, *(folder / "hparams" / given.name for folder in folders)]
    return next((file for file in files if file.is_file()), given)


def read_nodes(path: str | pathlib.Path) -> dict:
    """The top-level keys of a file as YAML nodes, tags included."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: there is no such hparams file")
    nodes = _parse(path.read_bytes(), path)
    if not isinstance(nodes, dict):
        raise InputError(f"{path} has no keys, expected 'key: value' lines")
    return nodes


def tag_of(node: Any) -> str:
    """The tag of a YAML node, e.g. "!new:torch.nn.Linear"; "" without one."""
    tag = getattr(node, "tag", None)
    return tag.value or "" if tag else ""


def save_resolved(
    hparams_file: str | pathlib.Path,
    overrides: str | dict,
    output_folder: str | pathlib.Path,
) -> None:
    """Writes a run's hyperparams.yaml, whole even if the process is killed."""
    text = _resolved_text(hparams_file, overrides)
    with atomic_path(pathlib.Path(output_folder) / HPARAMS) as temporary:
        source = pathlib.Path(hparams_file).resolve()
        temporary.write_text(f"# Generated from {source}\n{text}", "utf-8")


def check_same_run(
    hparams_file: str | pathlib.Path,
    overrides: str | dict,
    output_folder: str | pathlib.Path,
) -> dict[str, tuple[Any, Any]]:
    """Compares settings with those of the run in a folder.

    The settings are numbers, texts, lists of them, and the classes of objects.
    The result maps each key that differs to its value then and now; it is
    empty where the folder holds no run.
    """
    saved = pathlib.Path(output_folder) / HPARAMS
    if not saved.is_file():
        return {}
    then = _settings(read_nodes(saved))
    text = _resolved_text(hparams_file, overrides)
    now = _settings(_parse(text, hparams_file))
    return {
        key: (then.get(key), now.get(key))
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    }


def copy_recipes(folder: str | pathlib.Path) -> pathlib.Path:
    """Copies recipes to a new folder, with the hparams beside the scripts."""
    folder = pathlib.Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists: name a new folder")
    package = pathlib.Path(__file__).parent
    recipes = package / "recipes"  # of a wheel, made by setup.py
    ignore = shutil.ignore_patterns("__pycache__", "__init__.py", "results")
    if recipes.is_dir():
        shutil.copytree(recipes, folder, ignore=ignore)
    else:  # in the repository
        shutil.copytree(package.parent / "recipes", folder, ignore=ignore)
        hparams = folder / "VoxCeleb" / "hparams"
        shutil.copytree(package.parent / "hparams", hparams)
    return folder


def _resolved_text(path: str | pathlib.Path, overrides: str | dict) -> str:
    nodes = read_nodes(path)
    if isinstance(overrides, str):
        overrides = _parse(overrides or "{}", f"an option given to {path}")
    if not isinstance(overrides, dict):
        raise InputError(f"{path}: expected options of the form --key=value")
    for key, value in overrides.items():
        _check_override(path, nodes, key, value)
    try:
        with _valid_yaml(path), open(path, encoding="utf-8") as file:
            return resolve_references(file, overrides).getvalue()
    except InputError:
        raise
    except Exception as error:
        if "!PLACEHOLDER" in str(error):
            line = _missing_value(path, nodes, overrides)
        else:  # a reference to no key or in a circle, a division by zero, ...
            line = f"{path} cannot be resolved: {_one_line(error)}"
        raise InputError(line) from error


def _check_override(
    path: str | pathlib.Path, nodes: dict, key: str, value: Any
) -> None:
    if key not in nodes:
        close = difflib.get_close_matches(str(key), map(str, nodes))
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"{path} has no key {shown(str(key))}{hint}")
    node = nodes[key]
    if isinstance(value, dict) and not isinstance(node, dict):
        raise InputError(
            f"{path}: {key} is a mapping, expected a value like {node}"
        )
    # An object in place of a number is fine: a margin can be a schedule.
    if _is_number(node) and not (
        _is_number(value) or value is None or tag_of(value)
    ):
        raise InputError(
            f"{path}: {key} is {shown(str(value))}, expected a number "
            f"like {node}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _missing_value(
    path: str | pathlib.Path, nodes: dict, overrides: dict
) -> str:
    missing = [
        key
        for key, node in nodes.items()
        if tag_of(node) == "!PLACEHOLDER" and key not in overrides
    ]
    if missing and "data_folder" not in missing:
        return f"{path} needs {missing[0]}: pass --{missing[0]}=/path"
    return (
        f"{path} needs a corpus: pass --data_folder=/path/to/corpus "
        "(speaker/[session/]utterance.wav), or run 'make demo' in the "
        "repository for a synthetic one"
    )


def _parse(text: str | bytes, name: str | pathlib.Path) -> Any:
    with _valid_yaml(name):
        return ruamel.yaml.YAML().load(text)


@contextlib.contextmanager
def _valid_yaml(name: str | pathlib.Path) -> Iterator[None]:
    try:
        yield
    except ruamel.yaml.constructor.DuplicateKeyError as error:
        key = shown(str(error.problem).split('"')[1])
        raise InputError(f"{name} has {key} twice: give it once") from error
    except (ruamel.yaml.YAMLError, yaml.YAMLError) as error:
        message = shown(" ".join(str(error).split()), most=200)
        raise InputError(f"{name} is not valid YAML: {message}") from error


def _one_line(error: Exception) -> str:
    text = " ".join(" ".join(map(str, error.args)).split())
    return shown(text or type(error).__name__, most=200)


def _settings(nodes: dict) -> dict[str, Any]:
    scalars = (str, int, float, bool, type(None))
    settings = {}
    for key, node in nodes.items():
        items = node if isinstance(node, list) else [node]
        if tag_of(node):
            settings[key] = tag_of(node)
        elif all(isinstance(item, scalars) for item in items):
            settings[key] = node
    return settings
