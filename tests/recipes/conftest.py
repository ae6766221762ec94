"""One synthetic corpus and one trained system for all tests of the recipes."""

import types

import pytest

from recipes.OwnCorpus.synthetic_speech import make_synthetic_corpus
from tests.corpora import make_sounds
from tests.scripts import ROOT, TRAIN, VOXCELEB, run_script

OWN_CORPUS = ROOT / "recipes" / "OwnCorpus" / "run.py"
VERIFY = VOXCELEB / "speaker_verification.py"
SPEAKERS = 12
TINY = ("--channels=16", "--batch_size=16", "--num_workers=0")


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A corpus, sounds, and a run of recipes/OwnCorpus on them."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("recipes")
    make_synthetic_corpus(
        folder / "corpus", n_train=SPEAKERS, n_test=6, utterances=(6, 6)
    )
    make_sounds(folder / "sounds")
    demo = types.SimpleNamespace(
        corpus=folder / "corpus",
        run=folder / "run",
        trials=folder / "run" / "trials.txt",
        command=[
            OWN_CORPUS,
            f"--data_folder={folder / 'corpus'}",
            f"--output_folder={folder / 'run'}",
            "--number_of_epochs=2",
            *TINY,
        ],
        sounds=[
            f"--noise_source={folder / 'sounds'}",
            f"--rir_source={folder / 'sounds' / 'rir'}",
        ],
    )
    code, demo.printed = run_script(*demo.command)
    assert code == 0, demo.printed
    return demo


def train(demo, output, *options, hparams="ham_ecapa"):
    """Trains for an epoch; the exit code and the output."""
    own = {option.partition("=")[0] for option in options}
    defaults = (
        f"--data_folder={demo.corpus}",
        f"--verification_file={demo.trials}",
        f"--output_folder={output}",
        f"--out_n_neurons={SPEAKERS}",
        "--number_of_epochs=1",
        *demo.sounds,
        *TINY,
    )
    return run_script(
        TRAIN,
        ROOT / "hparams" / f"{hparams}.yaml",
        *(x for x in defaults if x.partition("=")[0] not in own),
        *options,
    )


def verify(demo, output, *options):
    """Verifies the model of the run; the exit code and the output."""
    own = {option.partition("=")[0] for option in options}
    defaults = (
        f"--data_folder={demo.corpus}",
        f"--verification_file={demo.trials}",
        f"--model_folder={demo.run / 'model'}",
        f"--output_folder={output}",
        "--cache_folder=null",
        "--n_crops=0",
    )
    return run_script(
        VERIFY,
        ROOT / "hparams" / "verification.yaml",
        *(x for x in defaults if x.partition("=")[0] not in own),
        *options,
    )
