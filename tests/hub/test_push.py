"""Models go to a Hub over a socket, or one line says why not.

The client is the real one, in a process of its own for each call, as a user
has it; the Hub is ``tests.hub_server.LoopbackHub``.
"""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.hub_server import LoopbackHub

ALICE, BOB = "hf_alice", "hf_bob"
MODEL = "alice/voices"
CLIENT = """
import json, sys
from speechbrain_hyperbolic.errors import exit_on_error
from speechbrain_hyperbolic.hub.push import push_model
with exit_on_error():
    print(push_model(**json.load(sys.stdin)))
"""
NAMES = [
    "config.json",
    "model.safetensors",
    "embedding_model.ckpt",
    "hyperparams.yaml",
    "README.md",
    "det.png",
    "results.json",
    "model.onnx",
    "examples/clip1.wav",
]


@pytest.fixture
def hub():
    with LoopbackHub({ALICE: "alice", BOB: "bob"}) as hub:
        yield hub


@pytest.fixture
def folder(tmp_path):
    """A model folder, and files that nobody asked to send."""
    folder = tmp_path / "model"
    write(folder)
    for name in ("notes.txt", "label_encoder.txt", "save/x.ckpt", ".env"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"mine alone")
    return folder


def write(folder, seed=0):
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(100 + seed))
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n# {seed}\n")


def content(folder, *names):
    return {name: (folder / name).read_bytes() for name in names or NAMES}


def run(hub, folder, repo_id=MODEL, token=ALICE, environment=(), **options):
    """Exit code, standard output and error of a push."""
    environment = {
        **hub.environment(folder.parent / "home", token),
        **dict(environment),
    }
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps({"folder": str(folder), "repo_id": repo_id} | options),
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert str(token) not in done.stdout + done.stderr
    return done.returncode, done.stdout.strip(), done.stderr


def push(hub, folder, **options):
    code, url, errors = run(hub, folder, **options)
    assert code == 0, errors
    return url


def refusal(hub, folder, **options):
    """The one line that a push ended with."""
    code, printed, text = run(hub, folder, **options)
    assert code == 2 and not printed and "Traceback" not in text, text
    (line,) = (x for x in text.splitlines() if "error: " in x)
    return line.partition("error: ")[2]


def test_the_model_goes_in_one_commit(hub, folder):
    url = push(hub, folder, message="First voices")
    assert url == f"{hub.url}/{MODEL}"
    assert hub.files(MODEL) == content(folder)
    messages = hub.repositories[MODEL].messages
    assert messages == ["initial commit", "First voices"]
    assert not any(b"mine alone" in body for *_, body in hub.requests)


def test_names_of_training_speakers_only_if_asked_for(hub, folder):
    push(hub, folder, speaker_names=True)
    assert hub.files(MODEL) == content(folder, *NAMES, "label_encoder.txt")
    push(hub, folder)
    assert hub.files(MODEL) == content(folder)


def test_what_the_folder_lacks_leaves_the_branch(hub, folder):
    push(hub, folder)
    repository = hub.repositories[MODEL]
    repository.commit(
        "main", hub.files(MODEL) | {"LICENSE": b"by hand"}, "by hand"
    )
    write(folder, seed=1)
    (folder / "model.onnx").unlink()
    push(hub, folder)
    kept = [name for name in NAMES if name != "model.onnx"]
    assert hub.files(MODEL) == content(folder, *kept) | {"LICENSE": b"by hand"}


def test_a_branch(hub, folder):
    push(hub, folder)
    first = content(folder)
    write(folder, seed=1)
    url = push(hub, folder, revision="v2")
    assert url == f"{hub.url}/{MODEL}/tree/v2"
    assert hub.files(MODEL) == first
    assert hub.files(MODEL, "v2") == content(folder)


def test_private(hub, folder):
    push(hub, folder, private=True)
    assert hub.repositories[MODEL].private
    push(hub, folder, private=True)
    hub.repositories[MODEL].private = False
    message = refusal(hub, folder, private=True)
    assert message.startswith(f"{MODEL} exists and is public: push to another")


def test_an_interrupted_push_leaves_what_was_there(hub, folder):
    push(hub, folder)
    first = content(folder)
    write(folder, seed=1)
    hub.faults["commit"] = [500]
    message = refusal(hub, folder)
    assert message == (
        f"{MODEL}: the Hub answered 500 (as the test asked): try again later"
    )
    assert hub.files(MODEL) == first
    push(hub, folder)
    assert hub.files(MODEL) == content(folder)


def test_not_logged_in(hub, folder):
    message = refusal(hub, folder, token=None)
    assert message == (
        "you are not logged in to the Hub: run `hf auth login`, or set "
        "HF_TOKEN to a token"
    )
    assert not hub.requests


def test_tokens_that_may_not(hub, folder):
    message = refusal(hub, folder, token="hf_unknown")
    assert message.startswith(f"{MODEL}: the Hub does not accept the token: ru")
    message = refusal(hub, folder, token=BOB)
    assert "the token does not allow this (You have no rights" in message
    assert not hub.repositories


def test_a_name_that_is_none(hub, folder):
    message = refusal(hub, folder, repo_id="alice/vo ices")
    assert message.startswith('alice/vo ices: expected "user/name" of letters')


def test_no_network(hub, folder):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    message = refusal(hub, folder, environment={"HF_ENDPOINT": url})
    assert message == (
        f"{MODEL}: the connection to {url} failed (ConnectError): check the "
        "network and try again"
    )
    message = refusal(hub, folder, environment={"HF_HUB_OFFLINE": "1"})
    assert message == "HF_HUB_OFFLINE is set: unset it to push"


def test_a_folder_without_a_model(hub, folder):
    (folder / "model.safetensors").unlink()
    assert "model has no model.safetensors: export" in refusal(hub, folder)
    assert not hub.requests
