"""Loads hparams files, with errors for people."""

import difflib
import pathlib

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from speechbrain_hyperbolic.errors import InputError


def load_hparams(path, overrides=""):
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
        an override names no key of the file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: no such hparams file")
    try:
        _check_nested(path, overrides)
        with open(path, encoding="utf-8") as file:
            return load_hyperpyyaml(file, overrides)
    except InputError:
        raise
    except ValueError as error:
        if "!PLACEHOLDER" not in str(error):
            raise
        raise InputError(
            f"{path} needs a corpus: pass --data_folder=/path/to/corpus "
            "(speaker/[session/]utterance.wav), or run 'make demo' in the top "
            "folder for a synthetic one"
        ) from error
    except ruamel.yaml.YAMLError as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} or an option given to it is not valid YAML: {message}"
        ) from error
    except KeyError as error:
        if "Override" not in str(error):
            raise
        name = error.args[0].split("'")[1]
        known = ruamel.yaml.YAML().load(path.read_text(encoding="utf-8"))
        close = difflib.get_close_matches(name, known)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"{path} has no key {name}{hint}") from error


def _check_nested(path, overrides):
    """Overrides of an included file are not checked by hyperpyyaml."""
    parse = ruamel.yaml.YAML().load
    if isinstance(overrides, str):
        overrides = parse(overrides) or {}
    for key, node in parse(path.read_text(encoding="utf-8")).items():
        tag = str(getattr(node, "tag", None) and node.tag.value)
        if not tag.startswith("!include:"):
            continue
        included = path.resolve().parent / tag.removeprefix("!include:")
        known = parse(included.read_text(encoding="utf-8"))
        for name in overrides.get(key) or {}:
            if name not in known:
                raise InputError(
                    f"{path}: override {key}: {{{name}: ...}} is no key of "
                    f"{included.name}"
                )


def check_same_run(hparams_file, overrides, output_folder, may_change):
    """Refuses to go on with a run that was started with other settings.

    The settings are the scalars and lists of scalars of a hparams file, which
    the stock recipe keeps in ``<output_folder>/hyperparams.yaml``.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
    overrides : str
    output_folder : str or pathlib.Path
    may_change : collection of str
        Keys that do not change what is learnt.

    Raises
    ------
    InputError
        Names the first key that differs, and both its values.
    """
    parse = ruamel.yaml.YAML().load
    before_file = pathlib.Path(output_folder) / "hyperparams.yaml"
    if not before_file.is_file():
        return
    before = _settings(parse(before_file.read_text(encoding="utf-8")))
    with open(hparams_file, encoding="utf-8") as file:
        now = _settings(parse(resolve_references(file, overrides)))
    for key in sorted(now.keys() | before.keys()):
        if key not in may_change and now.get(key) != before.get(key):
            raise InputError(
                f"{output_folder} holds a run with {key} {before.get(key)}, "
                f"and now it is {now.get(key)}: pass another --output_folder, "
                f"or --{key}={before.get(key)} to go on with that run"
            )


def _settings(hparams):
    scalars = (str, int, float, bool, type(None))
    return {
        key: value
        for key, value in hparams.items()
        if isinstance(value, scalars)
        or (
            isinstance(value, list)
            and all(isinstance(v, scalars) for v in value)
        )
    }
