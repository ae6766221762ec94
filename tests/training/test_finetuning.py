"""A pretrained encoder is frozen at first, and known centers are kept."""

import pytest
import torch
from safetensors.torch import load_file
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.lobes.models import ECAPA_TDNN, Xvector

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.classifiers import (
    HyperbolicClassifier,
    JointClassifier,
)
from speechbrain_hyperbolic.training.checkpoints import (
    AveragedPretrainer,
    RecentCheckpointer,
    average_epochs,
    read_state,
)
from tests.lobes.wavlm import make_wavlm
from tests.scripts import ROOT, VOXCELEB, succeed
from tests.training.brains import fit, ham, make_brain
from tests.training.runs import Run, assert_identical

HPARAMS = ROOT / "hparams"


def epochs_of(output, name="embedding_model"):
    """A module's state after each epoch."""
    found = RecentCheckpointer(output / "save").last_epochs(9)
    return [dict(read_state(e.paramfiles[name])) for e in reversed(found)]


def moves(folder, **options):
    """How far each parameter moves in a step; the head is the last."""
    brain = make_brain(folder, *ham(), **options)
    before = [p.detach().clone() for p in brain.modules.parameters()]
    fit(brain, steps=1)
    pairs = zip(brain.modules.parameters(), before, strict=True)
    return [(a - b).detach() for a, b in pairs]


def test_the_encoder_has_a_learning_rate_of_its_own(tmp_path):
    *encoder, head = moves(tmp_path / "same")
    found = moves(tmp_path / "own", fine_tuning={"lr_factor": 0.1})
    expected = [*(0.1 * move for move in encoder), head]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_fine_tuning_killed_in_each_epoch(corpus, tmp_path):
    """Frozen in the first epoch; with two new speakers."""
    start, whole, killed = (tmp_path / n for n in ("start", "whole", "killed"))
    with Run(corpus, start, "--number_of_epochs=1") as run:
        run.succeed()
    options = [
        f"--pretrain_path={start}",
        "--pretrain_modules=[embedding_model, classifier]",
        "--verification_file=null",
        "--out_n_neurons=8",
        "--number_of_epochs=2",
        "--freeze=1",
        "--encoder_lr=0.0001",
        "--ckpt_interval_minutes=0",
        "--ckpt_interval_steps=2",
    ]
    tune = {"hparams": HPARAMS / "finetune.yaml"}
    with Run(corpus, whole, *options, **tune) as run:
        printed = run.succeed()
    assert "classifier: 6 centers kept, 2 new, 0 left out" in printed
    frozen, tuned = epochs_of(whole)
    assert_identical(frozen, average_epochs(start / "save"))
    assert not any(torch.equal(frozen[key], tuned[key]) for key in frozen)

    for epoch in (1, 2):
        with Run(corpus, killed, *options, **tune) as run:
            run.wait_for(lambda n=epoch: f"into epoch {n}" in run.printed())
            before = set(killed.glob("save/CKPT*"))
            run.wait_for(lambda b=before: {*killed.glob("save/CKPT*")} - b)
            run.kill()
    with Run(corpus, killed, *options, **tune) as run:
        run.succeed()
    for name in ("embedding_model", "classifier", "optimizer"):
        assert_identical(
            epochs_of(whole, name)[-1], epochs_of(killed, name)[-1]
        )


def test_wavlm(corpus, tmp_path):
    """Frozen, then fine-tuned; its model verifies at once."""
    output, wavlm = tmp_path / "out", make_wavlm(tmp_path / "wavlm")
    own = [f"--wavlm={wavlm}", "--number_of_epochs=2", "--freeze=1"]
    with Run(corpus, output, *own, hparams=HPARAMS / "ham_wavlm.yaml") as run:
        run.succeed()
    first, last = epochs_of(output)
    key = "encoder.layers.1.attention.q_proj.weight"
    pretrained = load_file(wavlm / "model.safetensors")[key]
    assert torch.equal(first[f"wavlm.model.{key}"], pretrained)
    assert not torch.equal(last[f"wavlm.model.{key}"], pretrained)
    assert first["weights"].abs().min() > 0  # of layers, which learn at once
    printed = succeed(
        VOXCELEB / "speaker_verification.py",
        HPARAMS / "verification.yaml",
        f"--data_folder={corpus / 'corpus'}",
        f"--verification_file={corpus / 'trials.txt'}",
        f"--model_folder={output / 'model'}",
        "--n_crops=0",
        "--cache_folder=null",
    )
    assert "| all trials | 2 + 2" in printed


def tune_head(folder, head, trained, speakers="db", named=True):
    """Loads the trained head of a, b and c into one for other speakers."""
    for file, names in (
        (folder / "label_encoder.txt", speakers),
        (folder / "old" / "label_encoder.ckpt", "abc" * named),  # as the stock
    ):
        file.parent.mkdir(exist_ok=True)
        encoder = CategoricalEncoder()
        encoder.update_from_iterable(names)
        if names:
            encoder.save(file)
        else:
            file.unlink()
    torch.save(trained.state_dict(), folder / "old" / "classifier.ckpt")
    start = AveragedPretrainer(folder / "old", loadables={"classifier": head})
    RecentCheckpointer(folder, pretrainer=start).recover_if_possible()


def sub_centers(speakers):
    return HyperbolicClassifier(4, out_neurons=speakers, sub_centers=2)


def two_heads(speakers):
    cosine = HyperbolicClassifier(4, out_neurons=speakers, map="cosine")
    return JointClassifier([sub_centers(speakers), cosine])


def stock(speakers):
    return ECAPA_TDNN.Classifier(4, out_neurons=speakers)


@pytest.mark.parametrize("make", [sub_centers, two_heads, stock])
def test_known_speakers_keep_their_centers(make, tmp_path):
    trained, head = make(3), make(2)
    initial = {key: v.clone() for key, v in head.state_dict().items()}
    tune_head(tmp_path, head, trained)
    for key, old in trained.state_dict().items():
        if key.endswith("weight"):
            d, b = head.state_dict()[key].chunk(2)
            assert torch.equal(d, initial[key].chunk(2)[0])
            assert torch.equal(b, old.chunk(3)[1])


def test_centers_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="expected .6, 4. for 3 speakers"):
        tune_head(tmp_path, sub_centers(2), stock(3))
    other = Xvector.Classifier([None, None, 4], lin_neurons=4, out_neurons=3)
    with pytest.raises(InputError, match="can't take centers of other speak"):
        tune_head(tmp_path, other, other, "abd")
    tune_head(tmp_path, other, other, "abc")
    with pytest.raises(InputError, match="has no label_encoder.txt, which"):
        tune_head(tmp_path, stock(3), stock(3), named=False)
