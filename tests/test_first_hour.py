"""What a new user does first, and finds as it was promised."""

import csv
import json
import re
import shutil
import time

import pytest
import torch

from recipes.OwnCorpus import run as own_corpus
from speechbrain_hyperbolic import (
    AdditiveMargin,
    HyperbolicClassifier,
    HyperbolicSpeakerRecognition,
    JointClassifier,
    JointLoss,
    MarginSoftmax,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import read_nodes
from speechbrain_hyperbolic.hub.export import export_run
from speechbrain_hyperbolic.inference.model import read_config
from tests.corpora import make_corpus
from tests.inference.models import make_model, voice
from tests.scripts import ROOT, TRAIN, VOXCELEB, succeed


def test_the_training_loop_of_the_readme():
    """Its block runs as it stands, and the loss falls."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (loop,) = (block for block in blocks if "backward()" in block)
    losses = []
    exec(loop, {"print": lambda loss: losses.append(float(loss))})
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("embeddings", [(8, 6), (8, 1, 6)])
@pytest.mark.parametrize("labels", [(8,), (8, 1)])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_shapes(embeddings, labels, chunk_size):
    """One loss, whatever the shapes; outputs have that of the embeddings."""
    head = HyperbolicClassifier(6, out_neurons=5)
    cost = MarginSoftmax(AdditiveMargin(), chunk_size)
    joint = JointClassifier([head, head])
    both = JointLoss([cost, cost], [0.25, 0.75])
    x, y = torch.randn(8, 6), torch.arange(8) % 5
    expected = cost(head(x), y)
    x, y = x.view(embeddings), y.view(labels)
    outputs = head(x)
    assert outputs.shape == (*embeddings[:-1], 5)
    found = [cost(outputs, y), both(joint(x), y)]
    found += [head(x, y, cost), joint(x, y, both)]
    torch.testing.assert_close(found, [expected] * 4)


@pytest.mark.parametrize("classes, warned", [(64, False), (300, True)])
@pytest.mark.parametrize("similarity", ["clip", "cosine", "exponential"])
def test_outputs_of_no_speaker(classes, warned, similarity, caplog):
    """A warning after the first epoch, and no other."""
    head = HyperbolicClassifier(16, out_neurons=classes, map=similarity)
    cost = MarginSoftmax(AdditiveMargin())
    for _ in range(2):
        head.train()
        for labels in torch.arange(64).split(16):
            cost(head(torch.randn(16, 16)), labels).backward()
        head.eval()
    lines = [line for line in caplog.messages if "outputs had" in line]
    assert len(lines) == warned
    assert not warned or "64 of 300 outputs" in lines[0]


def test_a_stock_folder(tmp_path):
    """The same embeddings; thresholds are missing, and it says so."""
    make_model(tmp_path / "model")
    path = tmp_path / "model" / "hyperparams.yaml"
    text = re.sub(r"(?m)^model_config.*\n", "", path.read_text())
    path.write_text(text)
    ours = HyperbolicSpeakerRecognition.from_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").unlink()
    model = HyperbolicSpeakerRecognition.from_hparams(
        str(tmp_path / "model"), savedir=tmp_path / "cache"
    )
    clip = torch.from_numpy(voice(1))[None]
    assert model.encode_batch(clip).equal(ours.encode_batch(clip))
    assert model.verify_batch(clip, clip, threshold=0.5)[1]
    with pytest.raises(InputError, match="not been measured: .* verify the mo"):
        model.threshold_at()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("work"))


def train(work, output, *options, hparams="ham_ecapa", batch_size=8):
    return succeed(
        TRAIN,
        ROOT / "hparams" / f"{hparams}.yaml",
        f"--data_folder={work / 'corpus'}",
        f"--output_folder={output}",
        f"--batch_size={batch_size}",
        *("--number_of_epochs=1", "--num_workers=0"),
        *("--sentence_len=0.6", "--wav_augment=null"),
        *options,
    )


def test_nothing_is_said_twice(work, tmp_path):
    """From a run, its model folder and a stock one: its sizes, new speakers."""
    trials = f"--verification_file={work / 'trials.txt'}"
    sizes = ("--channels=16", "--emb_dim=24", "--n_mels=32")
    # Batch normalization can't train on a last batch of one of 47.
    printed = train(work, tmp_path / "run", trials, *sizes, batch_size=23)
    assert "6 training speakers" in printed
    assert "The last utterance of each epoch is left out" in printed
    stock = tmp_path / "stock"
    stock.mkdir()
    for name in ("hyperparams.yaml", "embedding_model.ckpt"):
        shutil.copy(tmp_path / "run" / "model" / name, stock)
    starts = [tmp_path / "run", tmp_path / "run" / "model", stock]
    for number, start in enumerate(starts):
        output = tmp_path / f"tuned{number}"
        option = f"--pretrain_path={start}"
        none = "--verification_file=null"
        printed = train(work, output, option, none, hparams="finetune")
        assert "8 training speakers" in printed  # all of them
        before = read_config(tmp_path / "run" / "model")
        after = read_config(output / "model")
        assert after.embedding_model == before.embedding_model
        nodes = read_nodes(output / "hyperparams.yaml")
        found = [nodes[key] for key in ("n_mels", "emb_dim", "channels")]
        assert found == [32, 24, 16]
    # The model that training leaves verifies at once.
    succeed(
        VOXCELEB / "speaker_verification.py",
        ROOT / "hparams" / "verification.yaml",
        f"--data_folder={work / 'corpus'}",
        trials,
        f"--model_folder={tmp_path / 'tuned0' / 'model'}",
        "--n_crops=0",
        "--cache_folder=null",
    )
    assert read_config(tmp_path / "tuned0" / "model").thresholds
    log = tmp_path / "tuned0" / "verification" / "log.txt"
    assert "font_manager" not in log.read_text()


def test_tables_of_ones_own(work, tmp_path):
    train(work, tmp_path / "first", "--verification_file=null", "--channels=16")
    save = tmp_path / "first" / "save"
    train(
        work,
        tmp_path / "second",
        "--skip_prep=True",
        f"--train_annotation={save / 'train.csv'}",
        f"--valid_annotation={save / 'dev.csv'}",
        "--channels=16",
    )
    folder = tmp_path / "exported"
    export_run(tmp_path / "second", folder)
    with open(save / "train.csv", newline="") as file:
        count = len(list(csv.DictReader(file)))
    assert f"{count} utterances of 8" in (folder / "README.md").read_text()


def test_names_of_corpora():
    name_of = own_corpus.name_of
    assert name_of("/data/speechocean762/audio") == "speechocean762"
    assert name_of("/data/mine/") == "mine"


def test_the_time_of_all_sessions(tmp_path):
    """Also of one that was killed."""
    path = tmp_path / "seconds.txt"
    clock = own_corpus.Clock(path)
    clock.began = time.monotonic() - 100
    clock.save()
    assert json.loads(path.read_text()) >= 100
    assert own_corpus.Clock(path).seconds() >= 100
