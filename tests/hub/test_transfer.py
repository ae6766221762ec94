"""Models go to a Hub over a socket and come back, or one line says why not.

The client is the real one, in a process of its own for each call, as a user
has it; the Hub is ``server.LoopbackHub``.
"""

import json
import os
import random
import re
import socket
import subprocess
import sys

import pytest

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hub.transfer import (
    MODEL_FILES,
    fetch_model,
    push_to_hub,
)
from speechbrain_hyperbolic.inference import model_folder
from tests.hub.server import LoopbackHub

ALICE, READER, STRANGER = "hf_aliceWrites", "hf_aliceReads", "hf_bobWrites"
TOKENS = (ALICE, READER, STRANGER, "hf_unknown")
MODEL = "alice/voices"
LARGE = 3_000_000  # more than what socket buffers hold
CLIENT = """
import json, sys
from speechbrain_hyperbolic.errors import exit_on_input_error
from speechbrain_hyperbolic.hub import transfer
call = json.load(sys.stdin)
with exit_on_input_error():
    print(getattr(transfer, call.pop("function"))(**call))
"""


class Client:
    """Calls of one user, each in a process of its own.

    Arguments
    ---------
    hub : LoopbackHub
    home : pathlib.Path
        HF_HOME, with the cache.
    """

    def __init__(self, hub, home):
        self.hub = hub
        self.home = home
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("HF_") and not key.lower().endswith("_proxy")
        } | {
            "HF_ENDPOINT": hub.url(),
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # Large files go by LFS, see TestXet for the other way.
            "HF_HUB_DISABLE_XET": "1",
        }

    def start(self, function, logged_in=None, environment=(), **arguments):
        """A process that calls a function; logged_in: the token in HF_TOKEN."""
        environment = self.environment | dict(environment)
        if logged_in:
            environment["HF_TOKEN"] = logged_in
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        call = {"function": function} | arguments
        process.stdin.write(json.dumps(call, default=str))
        process.stdin.close()
        process.stdin = None
        return process

    def call(self, *args, **kwargs):
        """What a function returned, as text."""
        status, out, err = self._run(*args, **kwargs)
        assert status == 0, err
        return out.strip()

    def refused(self, *args, **kwargs):
        """The one line that a function ended with."""
        status, out, err = self._run(*args, **kwargs)
        assert status == 2 and not out, err
        assert "Traceback" not in err
        # A progress bar of the client may be before it, or come after.
        bar = r"^.*B/s\](?: |\x1b\[A)*"
        errors = re.findall(rf"(?:^|\r|{bar})error: (.*)$", err, re.MULTILINE)
        assert len(errors) == 1, err
        return errors[0]

    def _run(self, *args, **kwargs):
        process = self.start(*args, **kwargs)
        out, err = process.communicate(timeout=120)
        self.check_no_token_in(out, err)
        return process.returncode, out, err

    def check_no_token_in(self, *texts):
        """Not in what was printed, written, or sent but in the header."""
        texts = [text.encode() for text in texts]
        files = [p for p in self.home.parent.rglob("*") if p.is_file()]
        texts += [path.read_bytes() for path in files]
        texts += [str(path).encode() for path in files]
        for request in self.hub.requests:
            texts += [request.path.encode(), request.body]
            if request.server == "storage":
                texts += [str(request.headers).encode()]
        for token in TOKENS:
            assert not any(token.encode() in text for text in texts)


@pytest.fixture
def hub():
    writers = {ALICE: "alice", STRANGER: "bob"}
    with LoopbackHub(writers=writers, readers={READER: "alice"}) as hub:
        yield hub


@pytest.fixture
def client(hub, tmp_path):
    return Client(hub, tmp_path / "home")


@pytest.fixture
def other(hub, tmp_path):
    """Someone else, whose cache is empty."""
    return Client(hub, tmp_path / "other home")


def write_model(folder, seed=0, without=()):
    """Random bytes under the names that an export has, and under others."""
    random.seed(seed)
    names = [
        "config.json",
        "model.safetensors",
        "embedding_model.ckpt",
        "hyperparams.yaml",
        "label_encoder.txt",
        "README.md",
        "det.png",
        "model.onnx",
        "examples/one.wav",
        "examples/other.wav",
    ]
    files = {n: random.randbytes(999) for n in names if n not in without}
    files["model.safetensors"] = random.randbytes(LARGE)
    if "README.md" in files:
        files["README.md"] = b"---\nlicense: apache-2.0\n---\n# %d\n" % seed
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return files


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "model"


@pytest.fixture
def files(folder):
    return write_model(folder)


@pytest.fixture
def pushed(hub, client, folder, files):
    """The model is on the Hub; what is asked of the Hub is from then on."""
    client.call("push_to_hub", folder=folder, repo_id=MODEL, token=ALICE)
    hub.requests.clear()
    return files


def served(hub, revision="main", repo_id=MODEL):
    files = dict(hub.repositories[repo_id].files(revision))
    files.pop(".gitattributes")
    return files


def pulled(path):
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in type(path)(path).rglob("*")
        if p.is_file()
    }


def of_model(files):
    return {name: files[name] for name in ("config.json", "model.safetensors")}


class TestPush:
    def test_all_of_the_export_in_one_commit(self, hub, client, folder, files):
        for name in ("notes.txt", "save/x.ckpt", "examples/a.mp3", ".env"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"mine alone")
        (folder / "examples" / "sub").mkdir()
        (folder / "examples" / "sub" / "a.wav").write_bytes(b"mine alone")
        url = client.call(
            "push_to_hub",
            folder=folder,
            repo_id=MODEL,
            token=ALICE,
            commit_message="First voices",
        )
        assert url == f"{hub.url()}/{MODEL}"
        assert served(hub) == files
        messages = hub.repositories[MODEL].messages
        assert messages == ["initial commit", "First voices"]
        assert not any(b"mine alone" in r.body for r in hub.requests)

    def test_the_token_goes_to_the_hub_alone(self, hub, client, folder, files):
        """And not to its storage, even where the client says all it does."""
        client.call(
            "push_to_hub",
            folder=folder,
            repo_id=MODEL,
            logged_in=ALICE,
            environment={"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"},
        )
        storage = [r for r in hub.requests if r.server == "storage"]
        assert storage
        for request in hub.requests:
            headers = {k.lower(): v for k, v in request.headers.items()}
            expected = None if request in storage else f"Bearer {ALICE}"
            assert headers.get("authorization") == expected

    def test_again_sends_nothing(self, hub, client, folder, pushed):
        client.call("push_to_hub", folder=folder, repo_id=MODEL, token=ALICE)
        assert not hub.sent("PUT", "") and not hub.sent("POST", "/commit/")

    def test_what_the_folder_lacks_leaves_the_branch(
        self, hub, client, folder, pushed
    ):
        repository = hub.repositories[MODEL]
        theirs = {"LICENSE": b"by hand", "examples/sub/a.wav": b"by hand"}
        repository.commit("main", repository.files() | theirs, "by hand")
        (folder / "model.onnx").unlink()
        (folder / "examples" / "other.wav").unlink()
        files = write_model(
            folder, seed=1, without=("model.onnx", "examples/other.wav")
        )
        client.call("push_to_hub", folder=folder, repo_id=MODEL, token=ALICE)
        assert served(hub) == files | theirs
        assert len(repository.messages) == 4

    def test_to_a_branch(self, hub, client, folder, pushed):
        files = write_model(folder, seed=1)
        call = {"folder": folder, "repo_id": MODEL, "revision": "v2/beta"}
        url = client.call("push_to_hub", token=ALICE, **call)
        assert url == f"{hub.url()}/{MODEL}/tree/v2/beta"
        assert served(hub) == pushed
        assert served(hub, "v2/beta") == files
        files = write_model(folder, seed=2)
        client.call("push_to_hub", token=ALICE, **call)
        assert served(hub, "v2/beta") == files

    def test_private(self, hub, client, folder, files):
        call = {"folder": folder, "token": ALICE, "private": True}
        client.call("push_to_hub", repo_id=MODEL, **call)
        assert hub.repositories[MODEL].private
        assert served(hub) == files
        client.call("push_to_hub", repo_id=MODEL, **call)

    def test_private_is_not_made_public(self, hub, client, folder, pushed):
        write_model(folder, seed=1)
        message = client.refused(
            "push_to_hub",
            folder=folder,
            repo_id=MODEL,
            token=ALICE,
            private=True,
        )
        assert message.startswith(f"{MODEL} exists and is public")
        assert served(hub) == pushed
        assert not hub.sent("PUT", "")


class TestPull:
    def test_gives_the_bytes_back(self, hub, other, pushed, tmp_path):
        folder = other.call("fetch_model", repo_id=MODEL)
        assert pulled(tmp_path / folder) == of_model(pushed)
        names = {r.path.rsplit("/")[-1] for r in hub.sent("GET", "/resolve/")}
        assert names <= set(of_model(pushed))
        assert len(hub.sent("GET", "signature")) == 1

    def test_to_a_cache_of_ones_own(self, other, pushed, tmp_path):
        cache = tmp_path / "cache"
        folder = other.call("fetch_model", repo_id=MODEL, cache_dir=cache)
        assert folder.startswith(str(cache))
        assert pulled(tmp_path / folder) == of_model(pushed)
        assert not (other.home / "hub").exists()

    def test_revision(self, hub, client, other, folder, pushed, tmp_path):
        repository = hub.repositories[MODEL]
        repository.refs["v1"] = first = repository.refs["main"]
        new = write_model(folder, seed=1)
        client.call("push_to_hub", folder=folder, repo_id=MODEL, token=ALICE)
        for revision, files in {
            "main": new,
            "v1": pushed,
            first: pushed,
            None: new,
        }.items():
            got = other.call("fetch_model", repo_id=MODEL, revision=revision)
            assert pulled(tmp_path / got) == of_model(files)

    def test_second_time_is_from_the_cache(self, hub, other, pushed):
        first = other.call("fetch_model", repo_id=MODEL)
        hub.requests.clear()
        assert other.call("fetch_model", repo_id=MODEL) == first
        assert hub.requests
        assert not hub.sent("GET", "/resolve/|signature")

    def test_offline(self, hub, other, pushed, tmp_path):
        offline = {"HF_HUB_OFFLINE": "1"}
        call = {"repo_id": MODEL, "environment": offline}
        message = other.refused("fetch_model", **call)
        assert message == (
            f"{MODEL} is not in the cache and HF_HUB_OFFLINE is set: unset it "
            "to pull the model once"
        )
        folder = other.call("fetch_model", repo_id=MODEL)
        hub.requests.clear()
        assert other.call("fetch_model", **call) == folder
        assert pulled(tmp_path / folder) == of_model(pushed)
        message = other.refused("fetch_model", revision="v9", **call)
        assert message.startswith(f"{MODEL} at v9 is not in the cache")
        assert not hub.requests

    def test_not_a_model_of_ours(self, hub, client, other, pushed):
        repository = hub.repositories[MODEL]
        files = dict(repository.files())
        del files["model.safetensors"]
        repository.commit("main", files, "by hand")
        message = other.refused("fetch_model", repo_id=MODEL)
        assert message.startswith(f"{MODEL} has no model.safetensors")

    def test_private_with_a_token(self, hub, other, pushed, tmp_path):
        hub.repositories[MODEL].private = True
        for how in ({"token": READER}, {"logged_in": READER}):
            folder = other.call("fetch_model", repo_id=MODEL, **how)
            assert pulled(tmp_path / folder) == of_model(pushed)


class TestInterruption:
    """The repository serves what it had, and the same call again completes."""

    @pytest.fixture
    def call(self, folder, pushed):
        self.old = pushed
        self.new = write_model(folder, seed=1)
        return {"folder": folder, "repo_id": MODEL, "token": ALICE}

    def then_again(self, hub, client, other, call, tmp_path):
        repository = hub.repositories[MODEL]
        assert served(hub) == self.old
        got = other.call("fetch_model", repo_id=MODEL)
        assert pulled(tmp_path / got) == of_model(self.old)
        client.call("push_to_hub", **call)
        assert served(hub) == self.new
        assert len(repository.messages) == 3
        got = other.call("fetch_model", repo_id=MODEL)
        assert pulled(tmp_path / got) == of_model(self.new)

    def test_upload_cut_once(self, hub, client, call):
        """The client itself sends that file again."""
        hub.faults["store"] = ["cut"]
        client.call("push_to_hub", **call)
        assert served(hub) == self.new

    def test_upload_cut(self, hub, client, other, call, tmp_path):
        # Then the signed address is no longer good, so the client gives up.
        hub.faults["store"] = ["cut"] + [403] * 7
        message = client.refused("push_to_hub", **call)
        assert message == (
            f"{MODEL}: the Hub answered 403 (as the test asked): try again "
            "later"
        )
        hub.faults.clear()
        self.then_again(hub, client, other, call, tmp_path)

    def test_commit_cut(self, hub, client, other, call, tmp_path):
        hub.faults["commit"] = ["cut"]
        message = client.refused("push_to_hub", **call)
        assert message.startswith(f"no connection to {hub.url()}, or it broke")
        hub.requests.clear()
        self.then_again(hub, client, other, call, tmp_path)
        assert not hub.sent("PUT", "")

    def test_answer_to_the_commit_lost(self, hub, client, call):
        hub.faults["commit"] = ["lose"]
        client.refused("push_to_hub", **call)
        assert served(hub) == self.new
        client.call("push_to_hub", **call)
        assert served(hub) == self.new
        assert len(hub.repositories[MODEL].messages) == 3

    @pytest.mark.parametrize("where", ["store", "commit"])
    def test_client_killed(self, hub, client, other, call, where, tmp_path):
        hub.faults[where] = ["hold"]
        process = client.start("push_to_hub", **call)
        assert hub.held.wait(60)
        process.kill()
        out, err = process.communicate(timeout=60)
        client.check_no_token_in(out, err)
        self.then_again(hub, client, other, call, tmp_path)

    def test_first_push_killed(self, hub, client, other, folder, files):
        """Then the repository is there and has no model."""
        hub.faults["store"] = ["hold"]
        call = {"folder": folder, "repo_id": MODEL, "token": ALICE}
        process = client.start("push_to_hub", **call)
        assert hub.held.wait(60)
        process.kill()
        process.communicate(timeout=60)
        message = other.refused("fetch_model", repo_id=MODEL)
        assert message.startswith(f"{MODEL} has no config.json")
        client.call("push_to_hub", **call)
        assert served(hub) == files

    def test_pull_killed(self, hub, other, pushed, tmp_path):
        hub.faults["load"] = ["hold"]
        process = other.start("fetch_model", repo_id=MODEL)
        assert hub.held.wait(60)
        process.kill()
        process.communicate(timeout=60)
        offline = {"HF_HUB_OFFLINE": "1"}
        message = other.refused(
            "fetch_model", repo_id=MODEL, environment=offline
        )
        assert "not in the cache" in message
        folder = other.call("fetch_model", repo_id=MODEL)
        assert pulled(tmp_path / folder) == of_model(pushed)


class TestXet:
    """How large files go where hf_xet is installed and not switched off."""

    @pytest.fixture
    def client(self, client):
        pytest.importorskip("hf_xet")
        del client.environment["HF_HUB_DISABLE_XET"]
        return client

    def test_in_one_commit(self, hub, client, other, folder, pushed, tmp_path):
        assert served(hub) == pushed
        assert hub.xorbs and len(hub.repositories[MODEL].messages) == 2
        got = other.call("fetch_model", repo_id=MODEL)
        assert pulled(tmp_path / got) == of_model(pushed)

    @pytest.mark.parametrize("where", ["xorb", "shard", "commit"])
    def test_client_killed(self, hub, client, folder, pushed, where):
        new = write_model(folder, seed=1)
        call = {"folder": folder, "repo_id": MODEL, "token": ALICE}
        hub.faults[where] = ["hold"]
        process = client.start("push_to_hub", **call)
        assert hub.held.wait(60)
        process.kill()
        out, err = process.communicate(timeout=60)
        client.check_no_token_in(out, err)
        assert served(hub) == pushed
        client.call("push_to_hub", **call)
        assert served(hub) == new
        assert len(hub.repositories[MODEL].messages) == 3

    def test_a_hub_without_it(self, hub, client, folder, files):
        hub.faults["xet_token"] = [404]
        message = client.refused(
            "push_to_hub", folder=folder, repo_id=MODEL, token=ALICE
        )
        assert message == (
            f"no connection to the Xet storage of {hub.url()} (404 Not Found)"
            ": check the network, then do the same again, with "
            "HF_HUB_DISABLE_XET=1 if that does not help"
        )
        assert served(hub) == {}


class TestOneLine:
    """On pull and push, each says what to do."""

    def test_no_token(self, hub, client, folder, files):
        message = client.refused("push_to_hub", folder=folder, repo_id=MODEL)
        assert message == (
            f"no token to push {MODEL} with: run `hf auth login`, or set "
            "HF_TOKEN to a token"
        )
        assert not hub.requests

    def test_wrong_token(self, hub, client, other, folder, pushed):
        expected = (
            "the Hub does not accept the token: run `hf auth login`, or set "
            "HF_TOKEN to a token"
        )
        call = {"repo_id": MODEL, "folder": folder}
        for how in ({"token": "hf_unknown"}, {"logged_in": "hf_unknown"}):
            assert client.refused("push_to_hub", **call, **how) == expected
            assert other.refused("fetch_model", repo_id=MODEL, **how) == (
                expected
            )

    def test_token_without_rights(self, hub, client, folder, files):
        call = {"folder": folder, "token": READER}
        message = client.refused("push_to_hub", repo_id=MODEL, **call)
        assert message.startswith("the token has no right to do this with")
        assert "namespace" in message and "`hf auth login`" in message
        message = client.refused("push_to_hub", repo_id="carol/voices", **call)
        assert 'under the namespace "carol"' in message
        assert not hub.repositories

    def test_someone_elses_repository(self, hub, client, folder, pushed):
        message = client.refused(
            "push_to_hub", folder=folder, repo_id=MODEL, token=STRANGER
        )
        assert message.startswith("the token has no right to do this with")
        assert served(hub) == pushed

    @pytest.mark.parametrize("token", [None, STRANGER], ids=["no", "wrong"])
    def test_no_such_repository(self, hub, other, pushed, token):
        hub.repositories[MODEL].private = True
        for name in ("alice/vioces", MODEL):
            message = other.refused("fetch_model", repo_id=name, token=token)
            assert message == (
                f"there is no model {name}, or it is private: check the name; "
                "for a private one run `hf auth login`, or set HF_TOKEN "
                "to a token that may read it"
            )

    @pytest.mark.parametrize("token", [None, STRANGER], ids=["no", "wrong"])
    def test_gated(self, hub, other, pushed, token):
        hub.repositories[MODEL].gated = True
        message = other.refused("fetch_model", repo_id=MODEL, token=token)
        assert message == (
            f"{MODEL} is gated: ask for access at {hub.url()}/{MODEL}, then "
            "run `hf auth login`, or set HF_TOKEN to a token"
        )

    @pytest.mark.parametrize("revision", ["v9", "0" * 40])
    def test_no_such_revision(self, hub, other, pushed, revision):
        message = other.refused("fetch_model", repo_id=MODEL, revision=revision)
        assert message.startswith(f"{MODEL} has no revision {revision}")

    def test_no_network(self, client, folder, files):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        nowhere = {"HF_ENDPOINT": url}
        call = {"repo_id": MODEL, "token": ALICE, "environment": nowhere}
        expected = (
            f"no connection to {url}, or it broke (ConnectError): check the "
            "network, then do the same again"
        )
        assert client.refused("fetch_model", **call) == expected
        message = client.refused("push_to_hub", folder=folder, **call)
        assert message == expected

    def test_a_hub_in_trouble(self, hub, client, folder, pushed):
        write_model(folder, seed=1)
        hub.faults["commit"] = [500]
        message = client.refused(
            "push_to_hub", folder=folder, repo_id=MODEL, token=ALICE
        )
        assert message == (
            f"{MODEL}: the Hub answered 500 (as the test asked): try again "
            "later"
        )
        assert served(hub) == pushed

    def test_push_offline(self, hub, client, folder, files):
        message = client.refused(
            "push_to_hub",
            folder=folder,
            repo_id=MODEL,
            token=ALICE,
            environment={"HF_HUB_OFFLINE": "1"},
        )
        assert message == "HF_HUB_OFFLINE is set: unset it to push"

    def test_metadata_that_the_hub_refuses(self, hub, client, folder, files):
        (folder / "README.md").write_text("---\nlicense: [\n---\n")
        message = client.refused(
            "push_to_hub", folder=folder, repo_id=MODEL, token=ALICE
        )
        assert message.startswith(f"{MODEL}: Invalid metadata in README.md")
        assert not hub.sent("PUT", "") and served(hub) == {}

    def test_a_cache_that_cannot_be_written(self, other, pushed, tmp_path):
        (tmp_path / "cache").write_text("a file")
        message = other.refused(
            "fetch_model", repo_id=MODEL, cache_dir=tmp_path / "cache"
        )
        assert str(tmp_path / "cache") in message


@pytest.mark.parametrize("token", ["", "hf alice", "hf_al\nice", "hf_é"])
def test_a_token_that_is_none(token, folder, files):
    """It's refused before a header is made, whose error would show it."""
    for call in (
        lambda: fetch_model(MODEL, token=token),
        lambda: push_to_hub(folder, MODEL, token=token),
    ):
        with pytest.raises(InputError, match="the token is empty or") as caught:
            call()
        assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "repo_id", ["voices", "a/b/c", "", "/voices", "alice/", "alice/vo ices"]
)
def test_names(repo_id, folder, files):
    for call in (
        lambda: fetch_model(repo_id),
        lambda: push_to_hub(folder, repo_id, token=ALICE),
    ):
        with pytest.raises(InputError, match=f"^repo_id is {repo_id!r}, exp"):
            call()


class TestFolder:
    """Refused before anything is sent: the tests' own process has no Hub."""

    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch):
        def refuse(*_):
            raise AssertionError("a connection was tried")

        monkeypatch.setattr(socket.socket, "connect", refuse)

    def refused(self, folder, match):
        with pytest.raises(InputError, match=match):
            push_to_hub(folder, MODEL, token=ALICE)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_incomplete(self, folder, files, name):
        (folder / name).unlink()
        self.refused(folder, f"{folder} has no {name}: export")

    def test_not_a_folder(self, folder):
        self.refused(folder, "is not a folder")

    def test_a_folder_for_a_file(self, folder, files):
        (folder / "det.png").unlink()
        (folder / "det.png").mkdir()
        self.refused(folder, "det.png is not a file")

    def test_links_that_leave(self, folder, files, tmp_path):
        secret = tmp_path / "secret"
        secret.write_text("secret")
        link = folder / "hyperparams.yaml"
        link.unlink()
        link.symlink_to(secret)
        self.refused(folder, "hyperparams.yaml is a link to outside of")
        link.unlink()
        link.symlink_to(tmp_path / "nothing")
        self.refused(folder, "hyperparams.yaml is a link to outside of")
        link.unlink()
        (tmp_path / "clips").mkdir()
        (tmp_path / "clips" / "one.wav").write_text("secret")
        for path in (folder / "examples").iterdir():
            path.unlink()
        (folder / "examples").rmdir()
        (folder / "examples").symlink_to(tmp_path / "clips")
        self.refused(folder, "one.wav is a link to outside of")

    def test_card_in_another_encoding(self, folder, files):
        (folder / "README.md").write_bytes(b"---\n---\nM\xe4rz")
        self.refused(folder, "README.md is not UTF-8")


def test_links_inside_are_followed(hub, client, folder, files):
    (folder / "model.onnx").rename(folder / "exported.bin")
    (folder / "model.onnx").symlink_to("exported.bin")
    client.call("push_to_hub", folder=folder, repo_id=MODEL, token=ALICE)
    assert served(hub) == files


def test_the_names_are_those_that_are_read():
    assert MODEL_FILES == (model_folder.CONFIG, model_folder.WEIGHTS)
