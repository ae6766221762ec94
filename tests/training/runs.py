"""Runs of the training script, of a second an epoch."""

import torch

from tests.scripts import ROOT, TRAIN, Script

HAM = ROOT / "hparams" / "ham_ecapa.yaml"
TINY = {
    "out_n_neurons": 6,
    "channels": 16,
    "batch_size": 4,
    "num_workers": 1,
    "number_of_epochs": 3,
    "sentence_len": 0.6,
    "split_ratio": "[80, 20]",
}


def arguments_of(corpus, output, *options, hparams=HAM):
    """The script and its options, of which later ones win."""
    given = {
        "data_folder": corpus / "corpus",
        "verification_file": corpus / "trials.txt",
        "noise_source": corpus / "sounds",
        "rir_source": corpus / "sounds" / "rir",
        "data_folder_noise": corpus / "bank",
        "output_folder": output,
        **TINY,
    }
    options = [o.removeprefix("--").partition("=") for o in options]
    given |= {key: value for key, _, value in options}
    return [TRAIN, hparams, *(f"--{k}={v}" for k, v in given.items())]


class Run(Script):
    """One that runs beside the test."""

    def __init__(self, corpus, output, *options, log=None, first=None, **kw):
        self.output = output
        super().__init__(
            log or output.with_name(f"{output.name}.log"),
            *arguments_of(corpus, output, *options, **kw),
            first=first,
        )

    def succeed(self):
        """Waits for its end; what it printed."""
        code, printed = self.finish()
        assert code == 0, printed
        return printed

    def error(self):
        """The one line that it ends with."""
        code, printed = self.finish()
        assert code == 2, printed
        assert "Traceback" not in printed, printed
        lines = printed.splitlines()
        (error,) = (line for line in lines if line.startswith("error: "))
        assert lines[-1] == error, printed
        return error

    def trains(self):
        """Whether an epoch has begun."""
        return "Going into epoch" in self.printed()


def assert_identical(a, b):
    """Bit for bit, in any nesting."""
    leaves, shape = torch.utils._pytree.tree_flatten(a)
    others, other_shape = torch.utils._pytree.tree_flatten(b)
    assert shape == other_shape
    for one, other in zip(leaves, others, strict=True):
        assert type(one) is type(other)
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype and torch.equal(one, other)
        else:
            assert one == other
