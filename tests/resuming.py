"""Trainings by the recipe's script, to be killed at any moment.

A server has imported what takes seconds; each training is a process that it
forks, with workers of its own.
"""

import pathlib
import subprocess
import sys

import numpy as np
import soundfile

ROOT = pathlib.Path(__file__).parents[1]
SERVER = """
import os, runpy, sys
import torch
import speechbrain_hyperbolic.training, speechbrain_hyperbolic.export
torch.set_num_threads(1)
torch.optim.Adam([torch.zeros(1)])  # imports its compiler
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        # As a process of its own, whatever becomes of the server's pipes
        sys.stdin = open(os.devnull)
        output = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        talk = os.dup(1)
        os.dup2(output, 1), os.dup2(output, 2), os.close(talk)
        sys.argv = line.rstrip("\\n").split("\\t")
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except BaseException as error:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    sys.stdin.readline()  # until then nothing else gets its number
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Trainings:
    """Starts trainings, one after another.

    Arguments
    ---------
    output : pathlib.Path
        The file for what they print.
    """

    def __init__(self, output):
        self.output = output
        output.touch()  # it is read before a training has begun to print
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def start(self, *arguments):
        """Starts one; its process id."""
        self.before = self.output.stat().st_size
        print(*arguments, sep="\t", file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def printed(self):
        """What that one has printed."""
        with open(self.output, errors="replace") as file:
            file.seek(self.before)
            return file.read()

    def wait(self):
        """The exit code of that one: -9 where it was killed."""
        print(file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def close(self):
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()


def make_corpus(folder, speakers=6, utterances=8):
    """Synthetic: a tone a speaker, in noise, of 0.5 to 1.2 s; trials; and
    sounds to augment with.
    """
    generator = np.random.default_rng(0)
    for speaker in range(speakers + 2):
        for number in range(utterances):
            path = folder / "corpus" / f"s{speaker}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            time = np.arange(generator.integers(8000, 19200)) / 16000
            tone = np.sin(2 * np.pi * 200 * (speaker + 1) * time)
            noise = generator.standard_normal(len(time))
            soundfile.write(path, 0.3 * tone + 0.05 * noise, 16000)
    for kind in ("noise", "music", "speech", "rir"):
        for number in range(3):
            path = folder / "sounds" / kind / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = generator.standard_normal(160000)
            if kind == "rir":
                samples = samples[:2000] * np.exp(-np.arange(2000) / 300)
            soundfile.write(path, samples / 10, 16000)
    (folder / "trials.txt").write_text(
        "".join(
            f"{int(a == b)} s{a + speakers}/0 s{b + speakers}/1\n"
            for a in range(2)
            for b in range(2)
        )
    )
    return folder
