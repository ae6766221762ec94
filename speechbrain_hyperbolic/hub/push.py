"""Model folders to the Hugging Face Hub.

huggingface_hub's own settings apply: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
"""

import pathlib

from huggingface_hub import HfApi, constants, get_token

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.download import LOG_IN, explain_errors

LABELS = "label_encoder.txt"
# Not imported from inference.model, since that takes seconds
REQUIRED = ("config.json", "model.safetensors")
# Nothing else in a folder is sent.
FILES = (
    *(*REQUIRED, "hyperparams.yaml", "embedding_model.ckpt", "README.md"),
    *("results.json", "det.png", "model.onnx", "examples/*.wav"),
)


def push_model(
    folder: str | pathlib.Path,
    repo_id: str,
    private: bool = False,
    speaker_names: bool = False,
) -> str:
    """Sends a model folder in one commit; returns the address of its page."""
    folder = pathlib.Path(folder)
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}: export the model first")
    if get_token() is None:
        raise InputError(f"you are not logged in to the Hub: {LOG_IN}")
    api = HfApi()
    with explain_errors(repo_id):
        created = api.create_repo(repo_id, private=private, exist_ok=True)
        repo_id = created.repo_id  # "model" is that of the user
        if private and not api.model_info(repo_id).private:
            raise InputError(
                f"{repo_id} exists and is public: push to another name, or "
                "make it private in its settings"
            )
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message="Push a speaker model",
            allow_patterns=[*FILES, *[LABELS] * speaker_names],
            # So that no file of an earlier model stays beside the new weights
            delete_patterns=[*FILES, LABELS],
        )
    return f"{constants.ENDPOINT}/{repo_id}"
