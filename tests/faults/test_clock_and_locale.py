"""Clocks that are put back, time zones, and locales."""

import csv
import functools
import locale
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.faults.runs import SPEAKERS, Run, arguments_of

# Every program's clock, but for an offset that it may change while it runs.
CLOCK = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    const char *offset = getenv("CLOCK_OFFSET");
    if (id == CLOCK_REALTIME && offset) now->tv_sec += atol(offset);
    return failed;
}
"""
SAVER = """
import os, sys, time
import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain_hyperbolic.checkpoints import (
    RecentCheckpointer, average_epochs
)
model = torch.nn.Linear(1, 1)
parts = {"m": model}
saver = RecentCheckpointer(sys.argv[1], keep_epochs=2, recoverables=parts)
now = time.time()
for value, days in enumerate([1, 0, -1, 2, -2]):
    os.environ["CLOCK_OFFSET"] = str(86400 * days)
    assert abs(time.time() - now - 86400 * days) < 600
    model.weight.data.fill_(value)
    saver.save_and_keep_only()
    for reader in (saver, Checkpointer(sys.argv[1], parts)):
        model.weight.data.fill_(-1)
        reader.recover_if_possible()
        assert model.weight.item() == value, (value, model.weight)
    last = [max(value - 1, 0), value]
    mean = average_epochs(sys.argv[1], 2, "m")["weight"].item()
    assert mean == sum(last) / 2, (value, mean)
"""


def test_a_clock_that_is_put_back(tmp_path, root):
    """The newest checkpoint is the last that was saved, for stock code too."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for a clock that can be changed")
    (tmp_path / "clock.c").write_text(CLOCK)
    library = tmp_path / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-o", library, "clock.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-c", SAVER, tmp_path / "save"],
        cwd=root,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def locales(tmp_path_factory):
    """Turkish and German as they were before UTF-8."""
    if not shutil.which("localedef"):
        pytest.skip("no localedef to make locales")
    folder = tmp_path_factory.mktemp("locales")
    for language, charmap in [("tr_TR", "ISO-8859-9"), ("de_DE", "ISO-8859-1")]:
        made = folder / f"{language}.{charmap}"
        done = subprocess.run(
            ["localedef", "-i", language, "-f", charmap, made],
            capture_output=True,
            text=True,
        )
        if not made.is_dir():
            pytest.skip(f"localedef: {done.stderr}")
    return folder


def settle(folder, language, zone):
    os.environ |= {"LOCPATH": str(folder), "LC_ALL": language, "TZ": zone}
    time.tzset()
    locale.setlocale(locale.LC_ALL, "")
    assert locale.getlocale()[0] == language.partition(".")[0]
    if language.startswith("de"):
        assert locale.str(0.5) == "0,5"


def test_a_run_that_moves(corpus, tmp_path, locales):
    """One run: in C, in Turkey, in Germany; its files are the same in each."""
    output = tmp_path / "out"
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(
        [
            sys.executable,
            *arguments_of(corpus, output, "--number_of_epochs=1"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    stays = ["label_encoder.txt", "train.csv", "dev.csv"]
    before = [(output / "save" / name).read_bytes() for name in stays]
    for epochs, language, zone in [
        (2, "tr_TR.ISO-8859-9", "Pacific/Kiritimati"),
        (3, "de_DE.ISO-8859-1", "America/Adak"),
    ]:
        with Run(
            corpus,
            output,
            f"--number_of_epochs={epochs}",
            first=functools.partial(settle, locales, language, zone),
        ) as run:
            code, printed = run.finish()
        assert code == 0, printed
        assert f", after epoch {epochs - 1} of {epochs}" in printed
        after = [(output / "save" / name).read_bytes() for name in stays]
        assert after == before
    with open(output / "save" / "train.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["spk_id"] for row in rows} == set(SPEAKERS)
    log = (output / "train_log.txt").read_text(encoding="utf-8")
    assert re.findall(r"epoch: (\d), lr: \d\.\d+e", log) == ["1", "2", "3"]
