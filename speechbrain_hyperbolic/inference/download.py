"""Why a model can't be downloaded from the Hugging Face Hub, in one line."""

import contextlib
from collections.abc import Iterator

from huggingface_hub import constants, errors

from speechbrain_hyperbolic.errors import InputError

_REASONS: dict[type[Exception], str] = {
    errors.HFValidationError: 'expected "user/model"',
    errors.OfflineModeIsEnabled: "it has not been downloaded, and "
    "HF_HUB_OFFLINE is set: unset it to download the model once",
    errors.RepositoryNotFoundError: "there is no such model, or it is private: "
    "check the name, and run `hf auth login` for a private one",
    errors.RevisionNotFoundError: "there is no such revision of it: pass a "
    "branch, a tag or a commit hash",
}


@contextlib.contextmanager
def explain_errors(source: str) -> Iterator[None]:
    """Turns what the Hub's client raises into an InputError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, errors.HTTPError) as error:
        reason = _explain(error)
        raise InputError(
            f"{source} is not a folder, and can't be downloaded: {reason}"
        ) from error


def _explain(error: BaseException) -> str:
    while error.__cause__ and isinstance(error, errors.LocalEntryNotFoundError):
        error = error.__cause__
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    # Not the client's own text, which can hold a signed address
    return (
        f"{constants.ENDPOINT} gave no answer ({type(error).__name__}): check "
        "the network and `hf auth whoami`, or try again later"
    )
