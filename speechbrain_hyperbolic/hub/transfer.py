"""Models to and from the Hugging Face Hub.

Which Hub it is, its cache, and whether it may be reached are huggingface_hub's
own settings: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from speechbrain_hyperbolic import __version__
from speechbrain_hyperbolic.errors import InputError

# As inference.model_folder has them, whose import takes PyTorch and seconds.
MODEL_FILES = ("config.json", "model.safetensors")
CARD = "README.md"
# What an export may hold. Nothing else of a folder is ever sent.
_PUSHED = re.compile(
    "|".join(
        re.escape(name)
        for name in (
            *MODEL_FILES,
            CARD,
            "embedding_model.ckpt",
            "hyperparams.yaml",
            "label_encoder.txt",
            "det.png",
            "model.onnx",
            "results.json",
        )
    )
    + r"|examples/[^/]+\.wav"
)
_LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token"


def fetch_model(
    repo_id: str,
    revision: str | None = None,
    cache_dir: str | pathlib.Path | None = None,
    token: str | None = None,
) -> pathlib.Path:
    """Brings config.json and model.safetensors of a model, and no other file.

    What the cache has is not downloaded again. It serves too where the Hub
    can't be reached, or with HF_HUB_OFFLINE=1.

    Arguments
    ---------
    repo_id : str
        "user/name".
    revision : str
        A branch, a tag or a commit hash; the main branch where not given.
    cache_dir : str or pathlib.Path
        The Hub's own cache where not given.
    token : str
        For a private or gated model; that of `hf auth login` or HF_TOKEN where
        not given.

    Returns
    -------
    folder : pathlib.Path
        With the two files, to be read and not to be written to.

    Raises
    ------
    InputError
        For whatever keeps the model from coming: the name, the revision, the
        token, the network, the disk.

    Example
    -------
    >>> fetch_model("a-name-without-a-user")
    Traceback (most recent call last):
    speechbrain_hyperbolic.errors.InputError: repo_id is \
'a-name-without-a-user', expected "user/name": letters, digits, and -, _ or . \
between them
    """
    _check_repo_id(repo_id)
    with _errors_for_people(repo_id, revision):
        _check_token(token)
        folder = pathlib.Path(
            snapshot_download(
                repo_id,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                allow_patterns=list(MODEL_FILES),
                library_name="speechbrain-hyperbolic",
                library_version=__version__,
            )
        )
    for name in MODEL_FILES:
        if not (folder / name).is_file():
            raise InputError(
                f"{_place(repo_id, revision)} has no {name}: expected a model "
                "that this package exported"
            )
    return folder


def push_to_hub(
    folder: str | pathlib.Path,
    repo_id: str,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Sends an exported model, as one commit.

    The repository is made where it's missing. Until the commit it serves what
    it had: after an interruption the same call again sends what is missing.
    Only what an export makes is sent, whatever else the folder holds; and of
    that, what the folder no longer has is removed from the branch, so that no
    old file stays beside new weights.

    Arguments
    ---------
    folder : str or pathlib.Path
        What ``hub.export.export_run`` made.
    repo_id : str
        "user/name".
    token : str
        One that may write; that of `hf auth login` or HF_TOKEN where not
        given.
    private : bool
        Only you can see it. A public repository isn't pushed to then.
    revision : str
        A branch, made where it's missing; the main one where not given.
    commit_message : str

    Returns
    -------
    url : str
        Of the model's page.

    Raises
    ------
    InputError
        For whatever keeps the model from going: the folder, the name, the
        token, its rights, the network.
    """
    _check_repo_id(repo_id)
    paths = _paths_to_push(pathlib.Path(folder))
    if constants.HF_HUB_OFFLINE:
        raise InputError("HF_HUB_OFFLINE is set: unset it to push")
    with _errors_for_people(repo_id, revision):
        if _check_token(token) is None:
            raise InputError(f"no token to push {repo_id} with: {_LOG_IN}")
        api = HfApi(
            token=token,
            library_name="speechbrain-hyperbolic",
            library_version=__version__,
        )
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise InputError(
                f"{repo_id} exists and is public, expected a private one: "
                "push to another name, or make it private in its settings"
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        stale = [
            name
            for name in api.list_repo_files(repo_id, revision=revision)
            if _PUSHED.fullmatch(name) and name not in paths
        ]
        api.create_commit(
            repo_id,
            [CommitOperationAdd(name, path) for name, path in paths.items()]
            + [CommitOperationDelete(name, is_folder=False) for name in stale],
            commit_message=commit_message or "Push a speaker model",
            revision=revision,
        )
    url = f"{constants.ENDPOINT}/{repo_id}"
    return url if revision is None else f"{url}/tree/{revision}"


def _check_repo_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
        valid = repo_id.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise InputError(
            f'repo_id is {repo_id!r}, expected "user/name": letters, digits, '
            "and -, _ or . between them"
        )


def _check_token(token: str | None) -> str | None:
    """The token that will be sent, None where there is none.

    One that no header can hold is refused: the HTTP client would show it.
    """
    token = get_token() if token is None else token
    if token is not None and not re.fullmatch("[!-~]+", token):
        raise InputError(
            "the token is empty or has characters that no token has: copy it "
            f"again, then {_LOG_IN}"
        )
    return token


def _paths_to_push(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name in the repository -> path, of what is to be sent."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder, expected the one that an export made"
        )
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in sorted([*folder.iterdir(), *folder.glob("examples/*")])
    }
    paths = {name: p for name, p in paths.items() if _PUSHED.fullmatch(name)}
    for name in MODEL_FILES:
        if name not in paths:
            raise InputError(
                f"{folder} has no {name}: export the model to it first"
            )
    inside = folder.resolve()
    for path in paths.values():
        if not path.resolve().is_relative_to(inside):
            raise InputError(
                f"{path} is a link to outside of {folder}: put the file itself "
                "there, or remove the link"
            )
        if not path.is_file():
            raise InputError(f"{path} is not a file: remove it")
    if CARD in paths:
        try:
            paths[CARD].read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(
                f"{paths[CARD]} is not UTF-8: save it so, or export again"
            ) from None
    return paths


@contextlib.contextmanager
def _errors_for_people(repo_id: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise InputError(_explain(error, repo_id, revision)) from error


def _explain(error: BaseException, repo_id: str, revision: str | None) -> str:
    """One line on what the client raised.

    Never the client's own text of a failed request: it has the address, which
    of an upload is signed.
    """
    wrappers = (LocalEntryNotFoundError, RuntimeError)
    while isinstance(error, wrappers) and error.__cause__ is not None:
        error = error.__cause__
    place = _place(repo_id, revision)
    if isinstance(error, OfflineModeIsEnabled):
        return (
            f"{place} is not in the cache and HF_HUB_OFFLINE is set: unset it "
            "to pull the model once"
        )
    if isinstance(error, GatedRepoError):
        return (
            f"{repo_id} is gated: ask for access at "
            f"{constants.ENDPOINT}/{repo_id}, then {_LOG_IN}"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"there is no model {repo_id}, or it is private: check the name; "
            f"for a private one {_LOG_IN} that may read it"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{repo_id} has no revision {revision}: expected a branch, a tag "
            f"or a commit hash, see {constants.ENDPOINT}/{repo_id}/commits"
        )
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        # The storage refuses signatures that are too old, not tokens.
        of_hub = str(error.response.url).startswith(f"{constants.ENDPOINT}/")
        if status == 401 and of_hub:
            return f"the Hub does not accept the token: {_LOG_IN}"
        said = " ".join((error.server_message or "no reason given").split())
        if status == 403 and of_hub:
            return (
                f"the token has no right to do this with {repo_id} ({said}): "
                f"check the user in the name; {_LOG_IN} that may"
            )
        return f"{place}: the Hub answered {status} ({said}): try again later"
    if isinstance(error, HTTPError):
        return (
            f"no connection to {constants.ENDPOINT}, or it broke "
            f"({type(error).__name__}): check the network, then do the same "
            "again"
        )
    if isinstance(error, ConnectionError):
        # Of hf_xet, which has the status in its text alone.
        found = re.search(r"\((\d{3} [\w ]+)\)", str(error))
        return (
            f"no connection to the Xet storage of {constants.ENDPOINT} "
            f"({found[1] if found else type(error).__name__}): check the "
            "network, then do the same again, with HF_HUB_DISABLE_XET=1 if "
            "that does not help"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return f"{place}: {' '.join(str(error).split())}"


def _place(repo_id: str, revision: str | None) -> str:
    return repo_id if revision is None else f"{repo_id} at {revision}"
