"""What the client of the Hugging Face Hub raises, in one line."""

import contextlib
from collections.abc import Iterator

from huggingface_hub import constants, errors

from speechbrain_hyperbolic.errors import InputError

LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token"
_REASONS: dict[type[Exception], str] = {
    errors.OfflineModeIsEnabled: "it has not been downloaded, and "
    "HF_HUB_OFFLINE is set: unset it to download the model once",
    errors.RepositoryNotFoundError: "there is no such model, or it is private: "
    "check the name, and run `hf auth login` for a private one",
    errors.RevisionNotFoundError: "there is no such revision of it: pass a "
    "branch, a tag or a commit hash",
}
_ADVICE = {
    401: f"it does not accept the token: {LOG_IN}",
    403: "check the user in the name, or log in with a token that can write "
    "there",
}


@contextlib.contextmanager
def explain_errors(what: str) -> Iterator[None]:
    """Turns the client's errors into an InputError that starts with ``what``.

    Without the client's text about a failed request, which can hold a signed
    address.
    """
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, errors.HTTPError) as error:
        raise InputError(f"{what}: {_explain(error)}") from error


def _explain(error: BaseException) -> str:
    wrappers = errors.LocalEntryNotFoundError | RuntimeError
    while error.__cause__ and isinstance(error, wrappers):
        error = error.__cause__
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        reason = " ".join((error.server_message or "no reason given").split())
        advice = _ADVICE.get(status, "try again later")
        return f"the Hub answered {status} ({reason}): {advice}"
    if isinstance(error, errors.HTTPError | ConnectionError):
        return (
            f"the connection to {constants.ENDPOINT} failed "
            f"({type(error).__name__}): check the network and try again"
        )
    return " ".join(str(error).split())
