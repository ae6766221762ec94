"""Trainings and verifications on the corpus of the demo."""

from tests.conftest import SPEAKERS, TINY
from tests.scripts import ROOT, TRAIN, VOXCELEB, run_script

VERIFY = VOXCELEB / "speaker_verification.py"


def train(demo, output, *options, hparams="ham_ecapa"):
    """Trains for an epoch; what is printed."""
    defaults = (
        f"--output_folder={output}",
        f"--out_n_neurons={SPEAKERS}",
        "--number_of_epochs=1",
        *demo.sounds,
        *TINY,
    )
    code, printed = run(demo, TRAIN, hparams, defaults, options)
    assert code == 0, printed
    return printed


def verify(demo, output, *options, code=0):
    """Verifies the model of the run; what is printed."""
    defaults = (
        f"--model_folder={demo.run / 'model'}",
        f"--output_folder={output}",
        "--cache_folder=null",
        "--n_crops=0",
    )
    found, printed = run(demo, VERIFY, "verification", defaults, options)
    assert found == code, printed
    return printed


def run(demo, script, hparams, defaults, options):
    given = {option.partition("=")[0] for option in options}
    defaults = (
        f"--data_folder={demo.corpus}",
        f"--verification_file={demo.trials}",
        *defaults,
    )
    return run_script(
        script,
        ROOT / "hparams" / f"{hparams}.yaml",
        *(x for x in defaults if x.partition("=")[0] not in given),
        *options,
    )
