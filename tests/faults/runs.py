"""Runs of the recipe, of a second or two an epoch."""

from tests.scripts import TRAIN, VOXCELEB, Script

HPARAMS = VOXCELEB / "hparams" / "ham_ecapa.yaml"
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


def arguments_of(corpus, output, *options):
    """The script and its arguments."""
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
    options = {option.partition("=")[0]: option for option in given}
    return [TRAIN, HPARAMS, *options.values()]


class Run(Script):
    """One that goes on beside the test.

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
        super().__init__(
            log or output.with_name(f"{output.name}.log"),
            *arguments_of(corpus, output, *options),
            first=first,
        )

    def error(self):
        """The one line that it ended with."""
        code, printed = self.finish()
        assert code == 2, printed
        assert "Traceback" not in printed, printed
        lines = printed.splitlines()
        (error,) = (line for line in lines if line.startswith("error: "))
        assert lines[-1] == error, printed
        return error
