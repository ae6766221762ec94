"""sampler: balanced, through the Brain."""

from collections import Counter

import pytest
import speechbrain as sb
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_hyperbolic.dataio.preparation import prepare_corpus
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from speechbrain_hyperbolic.training.datasets import make_datasets
from tests.corpora import make_corpus


@pytest.fixture(scope="module")
def hparams(tmp_path_factory):
    """The first of six speakers keeps two utterances, the others have 20."""
    folder = tmp_path_factory.mktemp("balanced")
    corpus = make_corpus(folder, utterances=20) / "corpus"
    for path in sorted((corpus / "s0").iterdir())[2:]:
        path.unlink()
    prepare_corpus(corpus, folder, ["s6", "s7"], split_ratio=(99, 1))
    return {
        "data_folder": corpus,
        "train_annotation": folder / "train.csv",
        "valid_annotation": folder / "dev.csv",
        "sample_rate": 16000,
        "sentence_len": 0.1,
        "random_chunk": True,
        "seed": 0,
        "epoch_counter": EpochCounter(1),
        "out_n_neurons": 6,
        "sampler": "balanced",
    }


def epochs(hparams, count):
    """The ids of each epoch."""
    brain = SpeakerBrain(
        hparams={**hparams, "compute_cost": None, "output_folder": ""},
        run_opts={"device": "cpu"},
    )
    loader = brain.make_dataloader(
        make_datasets(hparams)[0], sb.Stage.TRAIN, batch_size=4, shuffle=True
    )
    found = []
    for epoch in range(count):
        brain.train_sampler.set_epoch(epoch)
        found.append([name for batch in loader for name in batch.id])
    return found


def test_every_speaker_is_drawn_equally_often(hparams):
    drawn = epochs(hparams, 30)
    assert drawn == epochs(hparams, 30)
    assert drawn[0] != drawn[1]
    counts = Counter(name.split("/")[0] for epoch in drawn for name in epoch)
    mean = sum(counts.values()) / 6
    assert len(counts) == 6
    assert all(abs(n / mean - 1) < 0.2 for n in counts.values()), counts


def test_another_sampler(hparams):
    with pytest.raises(InputError, match="sampler is fair, expected balanced"):
        make_datasets({**hparams, "sampler": "fair"})
