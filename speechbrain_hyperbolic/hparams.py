"""Loads hparams files, with errors for people."""

import pathlib

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml

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
        raise InputError(f"{path}: {error.args[0][:200]}") from error
