"""Models go to a Hub over a socket, or one line says why not.

The client is the real one, in a process of its own for each call, as a user
has it; the Hub is ``tests.hub_server.LoopbackHub``.
"""

import os
import subprocess
import sys

import pytest

from tests.hub_server import LoopbackHub

ALICE, BOB = "hf_alice", "hf_bob"
MODEL = "alice/voices"
PUSH = [sys.executable, "-m", "speechbrain_hyperbolic.cli", "push"]
NAMES = ["config.json", "model.safetensors", "embedding_model.ckpt"]
NAMES += ["hyperparams.yaml", "README.md", "det.png", "results.json"]
NAMES += ["model.onnx", "examples/clip1.wav"]


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


def write(folder):
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(100))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")


def content(folder, *names):
    return {name: (folder / name).read_bytes() for name in names or NAMES}


def push(hub, folder, *options, repo_id=MODEL, token=ALICE):
    """What a push prints: the address, or one line that says why not."""
    done = subprocess.run(
        [*PUSH, folder, repo_id, *options],
        capture_output=True,
        text=True,
        env=hub.environment(folder.parent / "home", token),
    )
    assert str(token) not in done.stdout + done.stderr
    if done.returncode == 0:
        return done.stdout.strip()
    (line,) = (x for x in done.stderr.splitlines() if "error: " in x)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    return line[line.index("error: ") :]


def test_the_model_goes_in_one_commit(hub, folder):
    push(hub, folder, "--speaker-names")  # sent only if asked for
    assert hub.files(MODEL) == content(folder, *NAMES, "label_encoder.txt")
    hub.requests.clear()
    assert push(hub, folder, repo_id="voices") == f"{hub.url}/{MODEL}"
    assert hub.files(MODEL) == content(folder)
    assert not any(b"mine alone" in body for *_, body in hub.requests)


def test_what_the_folder_lacks_leaves_the_branch(hub, folder):
    push(hub, folder)
    repository = hub.repositories[MODEL]
    repository.commit("main", hub.files(MODEL) | {"LICENSE": b"by hand"})
    write(folder)
    (folder / "model.onnx").unlink()
    push(hub, folder)
    kept = [name for name in NAMES if name != "model.onnx"]
    assert hub.files(MODEL) == content(folder, *kept) | {"LICENSE": b"by hand"}


def test_private(hub, folder):
    push(hub, folder, "--private")
    assert hub.repositories[MODEL].private
    hub.repositories[MODEL].private = False
    message = push(hub, folder, "--private")
    assert f"error: {MODEL} exists and is public: push to another" in message


def test_an_interrupted_push_leaves_what_was_there(hub, folder):
    push(hub, folder)
    first = content(folder)
    write(folder)
    hub.fault = 500
    message = push(hub, folder)
    assert "the Hub answered 500 (as the test asked): try again" in message
    assert hub.files(MODEL) == first


@pytest.mark.parametrize(
    "mistake, words",
    [
        ({"token": "hf_unknown"}, "it does not accept the token: run `hf auth"),
        ({"token": BOB}, f"{MODEL}: the Hub answered 403 (You have no rights"),
        ({"token": None}, "you are not logged in to the Hub: run `hf auth"),
        ({"repo_id": "alice/a b"}, "alice/a b: Repo id must use alphanumeric"),
    ],
)
def test_mistakes(mistake, words, hub, folder):
    assert words in push(hub, folder, **mistake)
    assert not hub.repositories
