"""Runs of the recipe's script, each in a process of its own.

They are forked from a server that has imported what takes seconds to import.
"""

import multiprocessing
import os
import pathlib
import runpy
import sys
import time

VOXCELEB = pathlib.Path(__file__).parents[2] / "recipes" / "VoxCeleb"
SCRIPT = VOXCELEB / "train_speaker_embeddings.py"
SPEAKERS = ["Jürgen", "İpek", "Łukasz"]
TINY = [
    f"--out_n_neurons={len(SPEAKERS)}",
    "--channels=8",
    "--emb_dim=8",
    "--batch_size=4",
    "--num_workers=0",
    "--number_of_epochs=2",
    "--split_ratio=[75, 25]",
    "--sentence_len=0.3",
]
PATIENCE = 300  # seconds; a hang is longer

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "matplotlib.pyplot",
        "speechbrain_hyperbolic.augment",
        "speechbrain_hyperbolic.dataio.noise",
        "speechbrain_hyperbolic.export",
        "speechbrain_hyperbolic.nnet.losses",
        "speechbrain_hyperbolic.training",
        "speechbrain.lobes.models.ECAPA_TDNN",
    ]
)


def options_of(corpus, output, *options):
    """The arguments of the script, but for the hparams file."""
    given = [
        f"--data_folder={corpus / 'corpus'}",
        f"--verification_file={corpus / 'trials.txt'}",
        f"--noise_source={corpus / 'noise'}",
        f"--rir_source={corpus / 'noise'}",
        f"--output_folder={output}",
        *TINY,
        *options,
    ]
    # Of an option that is given twice the script would complain.
    return list({option.partition("=")[0]: option for option in given}.values())


class Run:
    """A run that goes on beside the test.

    Arguments
    ---------
    corpus : pathlib.Path
        The fixture.
    output : pathlib.Path
        Its output_folder.
    *options : str
        Of the script, besides the tiny ones.
    log : pathlib.Path
        For what it prints; default: beside the output.
    first : callable
        What the process does before it is the script, e.g. sets a limit.
    """

    def __init__(self, corpus, output, *options, log=None, first=None):
        self.output = output
        self.log = log or output.with_name(f"{output.name}.log")
        self.log.touch()
        self.process = _processes.Process(
            target=_run,
            args=(options_of(corpus, output, *options), self.log, first),
        )
        self.process.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def wait_for(self, condition):
        """Until it's true, or what the run printed shows why not."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.is_alive(), self.printed()
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.01)

    def finish(self):
        """Its exit code, and the lines it printed."""
        self.process.join(PATIENCE)
        assert not self.process.is_alive(), f"hangs\n{self.printed()}"
        return self.process.exitcode, self.printed().splitlines()

    def error(self):
        """The one line that it ended with."""
        code, lines = self.finish()
        printed = "\n".join(lines)
        assert code == 2, printed
        assert "Traceback" not in printed, printed
        (error,) = (line for line in lines if line.startswith("error: "))
        assert lines[-1] == error, printed
        return error

    def printed(self):
        return self.log.read_text(encoding="utf-8", errors="replace")


def _run(options, log, first):
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # As a script has it on Linux, and not as the server that forked this.
    multiprocessing.set_start_method("fork", force=True)
    if first:
        first()
    hparams = VOXCELEB / "hparams" / "ham_ecapa.yaml"
    sys.argv = [str(SCRIPT), str(hparams), *options]
    runpy.run_path(str(SCRIPT), run_name="__main__")
