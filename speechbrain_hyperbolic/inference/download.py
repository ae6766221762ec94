"""Why a model does not come from the Hugging Face Hub, in one line."""

import contextlib
from collections.abc import Iterator

from huggingface_hub import constants, errors

from speechbrain_hyperbolic.errors import InputError

_REASONS: dict[type[Exception], str] = {
    errors.HFValidationError: 'expected a folder, or "user/model" on the Hub',
    errors.OfflineModeIsEnabled: "it has not been downloaded, and "
    "HF_HUB_OFFLINE is set: unset it to download the model once",
    errors.GatedRepoError: "its owner grants access on its page: ask there, "
    "then run `hf auth login`",
    errors.RepositoryNotFoundError: "the Hub has no such model, or it is "
    "private: check the name, and run `hf auth login` for a private one",
    errors.RevisionNotFoundError: "the Hub has no such revision of it: pass a "
    "branch, a tag or a commit hash",
}


@contextlib.contextmanager
def explain_errors(source: str) -> Iterator[None]:
    """Turns what the Hub's client raises into an InputError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, errors.HTTPError) as error:
        raise InputError(
            f"{source} is no folder, and from the Hub: {_explain(error)}"
        ) from error


def _explain(error: BaseException) -> str:
    # Not the client's text about a request, which can hold a signed address
    while error.__cause__ and isinstance(error, errors.LocalEntryNotFoundError):
        error = error.__cause__
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return "the token is not accepted: run `hf auth login`"
        return f"{constants.ENDPOINT} answered {status}: try again later"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return (
        f"the connection to {constants.ENDPOINT} failed "
        f"({type(error).__name__}): check the network"
    )
