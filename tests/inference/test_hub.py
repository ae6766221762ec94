"""Models to and from a Hub, by the real client in processes of its users."""

import re
import subprocess
import sys

from tests.conftest import ROOT
from tests.hub_server import LoopbackHub

CLIENT = """
import sys
from speechbrain_hyperbolic import HyperbolicSpeakerRecognition
from speechbrain_hyperbolic.errors import exit_on_error
def load(*args, **options):
    options["run_opts"] = {"device": "cpu"}
    model = HyperbolicSpeakerRecognition.from_pretrained(*args, **options)
    print("fingerprint", model.fingerprint)
    return model
with exit_on_error():
    exec(sys.argv[1])
"""


def client(hub, home, code, token=None, **environment):
    """What a process of a user printed."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, code],
        cwd=ROOT,
        env=hub.environment(home, token) | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 2), done.stderr
    return done.stdout + done.stderr


def test_push_to_the_hub_and_back(folder, model, tmp_path):
    with LoopbackHub({"hf_alice": "alice"}) as hub:
        push = f"load({str(folder)!r}).push_to_hub('alice/m')"
        client(hub, tmp_path / "alice", push, "hf_alice")
        files = hub.files("alice/m")
        for name in ("config.json", "model.safetensors", "hyperparams.yaml"):
            assert files[name] == (folder / name).read_bytes()
        assert b"from_pretrained" in files["README.md"]
        hub.requests.clear()
        other = tmp_path / "other"
        printed = client(hub, other, "load('alice/m')")
        assert f"fingerprint {model.fingerprint}" in printed
        paths = [path for path, _ in hub.requests if "/resolve/" in path]
        names = {path.rpartition("/")[2] for path in paths}
        assert names == {"config.json", "model.safetensors"}
        # From the cache, without the Hub
        code = "load('alice/m'); load('bob/m')"
        printed = client(hub, other, code, HF_HUB_OFFLINE="1")
        assert f"fingerprint {model.fingerprint}" in printed
        assert "error: bob/m is not a folder, and can't be down" in printed


MISTAKES = {
    "load('alice/none')": "there is no such model, or it is private",
    "load('alice/m', revision='v9')": "there is no such revision",
    "load('a/b/c')": "Repo id must be in the form",
    "load('alice/m', endpoint='http://127.0.0.1:9')": "the connection to",
}


def test_why_a_model_does_not_come(tmp_path):
    with LoopbackHub({"hf_alice": "alice"}) as hub:
        code = "from huggingface_hub import HfApi\n"
        code += "HfApi().create_repo('alice/m')\n"
        for call in MISTAKES:
            code += f"try: {call}\nexcept ValueError as e: print(e)\n"
        printed = client(hub, tmp_path, code, "hf_alice")
        lines = [x for x in printed.splitlines() if "can't be down" in x]
        for line, words in zip(lines, MISTAKES.values(), strict=True):
            assert words in line


def test_a_stranger_names_no_code_in_fine_tuning(folder, tmp_path):
    """What pretrain_path loads from the Hub is a YAML file with classes."""
    mark = tmp_path / "mark"
    hostile = f"!new:subprocess.Popen\n    args: [touch, {mark}]"
    hostile = f"embedding_model: {hostile}\nrest: !new:builtins.dict"
    text = (folder / "hyperparams.yaml").read_text()
    text = re.sub("(?m)^embedding_model:.*", hostile, text)
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(text)
    push = (
        "from huggingface_hub import HfApi; api = HfApi();"
        "api.create_repo('alice/bad', exist_ok=True);"
        f"api.upload_folder(repo_id='alice/bad', folder_path='{folder}')"
    )
    start = (
        "from speechbrain_hyperbolic.hub.start import options_of_start;"
        "print(options_of_start({'pretrain_path': 'alice/bad'}, ()))"
    )
    with LoopbackHub({"hf_alice": "alice"}) as hub:
        client(hub, tmp_path / "alice", push, "hf_alice")
        printed = client(hub, tmp_path / "other", start)
        assert "alice/bad names subprocess.Popen, which may be any" in printed
        assert not mark.exists()
