#!/usr/bin/env python3
"""Fills in our row of the results in README.md, by measurement.

> python results.py hparams/verification_ham_ecapa.yaml \
      --data_folder=/path/to/VoxCeleb1 [--row="HAM-Softmax, here"]

It runs speaker_verification.py on VoxCeleb1-O (with crops, as published), -E
and -H, to which all other options go, and can be interrupted and run again.
"""

import argparse
import datetime
import pathlib
import subprocess
import sys

import yaml

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError, exit_on_input_error
from speechbrain_hyperbolic.verification import read_results

HERE = pathlib.Path(__file__).resolve().parent
META = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/"
# Of each list its options: the published protocol has crops on the first only.
LISTS = {
    "O": {"verification_file": f"{META}veri_test2.txt", "n_crops": 5},
    "E": {"verification_file": f"{META}list_test_all2.txt", "n_crops": 0},
    "H": {"verification_file": f"{META}list_test_hard2.txt", "n_crops": 0},
}
PLACE = "not yet run here: needs VoxCeleb and a GPU"


def main():
    """Runs the lists, and writes the row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("hparams_file")
    parser.add_argument("--row", default="HAM-Softmax, here")
    parser.add_argument("--readme", default=HERE / "README.md")
    parser.add_argument("--output_folder", default="results/voxceleb1")
    parser.add_argument("--lists", default="{}", help="paths, by O, E, H")
    options, extra = parser.parse_known_args()
    readme = pathlib.Path(options.readme)
    replace_row(readme, options.row, None)  # fails now if it can't later
    for name, path in read_lists(options.lists).items():
        LISTS[name]["verification_file"] = path
    for argument in extra:
        key = argument.removeprefix("--").partition("=")[0]
        if key in LISTS["O"]:
            raise InputError(
                f"{argument}: {key} is set here, for each list its own; "
                "other lists can be given as --lists='{O: /path}'"
            )
    results = {
        name: verify(
            options.hparams_file,
            {"output_folder": f"{options.output_folder}/{name}", **own},
            extra,
        )
        for name, own in LISTS.items()
    }
    row = format_row(f"{options.row} ({provenance()})", results)
    replace_row(readme, options.row, row)
    print(f"{readme}:\n{row}")


def read_lists(text):
    """The --lists option, e.g. {O: /path/to/veri_test2.txt}."""
    lists = yaml.safe_load(text)
    if not (isinstance(lists, dict) and set(lists) <= set(LISTS)):
        raise InputError(
            f"--lists is {text}, expected paths by some of {', '.join(LISTS)}, "
            "e.g. --lists='{O: /path/to/veri_test2.txt}'"
        )
    return lists


def verify(hparams_file, overrides, extra):
    """Runs one list as a user would; what it measured over all trials."""
    command = [sys.executable, HERE / "speaker_verification.py", hparams_file]
    command += [f"--{key}={value}" for key, value in overrides.items()]
    code = subprocess.run([*command, *extra]).returncode
    if code:
        sys.exit(code)
    results = pathlib.Path(overrides["output_folder"]) / "results.json"
    return read_results(results)["all trials"]


def provenance():
    """The commit and the day."""
    try:
        commit = subprocess.check_output(
            ["git", "describe", "--always", "--dirty"], cwd=HERE, text=True
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "no commit"
    return f"{commit}, {datetime.date.today()}"


def format_row(title, results):
    """A row of the table of README.md."""
    rates = [f"{100 * result['eer']:.3f}" for result in results.values()]
    costs = [f"{result['min_dcf_0.01']:.3f}" for result in results.values()]
    costs = "/".join(cost.removeprefix("0") for cost in costs)
    return f"| {' | '.join([title, *rates, costs])} |"


def replace_row(readme, start, row):
    """Puts a row in the place of the one that starts so; None only looks."""
    if not readme.is_file():
        raise InputError(f"{readme} is missing: pass another --readme")
    lines = readme.read_text(encoding="utf-8").splitlines()
    found = [n for n, line in enumerate(lines) if line.startswith(f"| {start}")]
    if len(found) != 1:
        raise InputError(
            f"{readme} has {len(found)} rows that start with {start!r}, "
            f"expected one, such as '| {start} | {PLACE} | | | |'"
        )
    if row is not None:
        lines[found[0]] = row
        with atomic_path(readme) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
