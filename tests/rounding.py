"""What rounding makes of a training, in one process and in two.

> python -m tests.rounding

prints, step by step, how far the loss of learnt curvature is from that of one
process: in two processes on the same batches; and in one process whose weights
were changed, before the first step, by as little as they are rounded by.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import speechbrain as sb
import torch

from speechbrain_hyperbolic.distributed import start_processes
from tests import distributed_jobs as jobs

JOB = "learnt_curvature_views"
STEPS = (1, 3, 6, 9, 12)


def main(folder):
    """Runs all, and prints a row for each."""
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node=2", "-m", "tests.rounding", folder),
        ],
        check=True,
    )
    for dtype in (torch.float32, torch.float64):

        def alone(change, dtype=dtype):
            own = folder / f"{dtype} {change}"
            record = jobs.train(JOB, own, {"device": "cpu"}, 1, dtype, change)
            return record["losses"]

        parts = [torch.load(folder / f"{dtype}.{rank}") for rank in range(2)]
        expected = alone(0.0)
        for what, losses in (
            ("two processes", sum(parts) / 2),
            ("one, its weights changed", alone(torch.finfo(dtype).eps)),
        ):
            differences = (losses - expected).abs()
            cells = [f"{differences[step - 1]:.0e}" for step in STEPS]
            print(f"| {dtype} | {what} | {' | '.join(cells)} |")


def be_one_of_two(folder):
    """Leaves the losses of this process in the folder."""
    _, run_opts, _ = sb.parse_arguments(
        ["none", "--distributed_backend=gloo", "--device=cpu"]
    )
    start_processes(run_opts)
    for dtype in (torch.float32, torch.float64):
        record = jobs.train(JOB, folder / f"two {dtype}", run_opts, 2, dtype)
        torch.save(record["losses"], folder / f"{dtype}.{os.environ['RANK']}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        be_one_of_two(pathlib.Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(pathlib.Path(temporary))
