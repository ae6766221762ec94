"""The comparison of losses: corpora, trials, cells and their report."""

import itertools
import json

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

from benchmarks import draws
from benchmarks.losses import cells, features, training
from benchmarks.losses.report import Report
from benchmarks.losses.systems import SYSTEMS, CurvedCosine, find_system
from benchmarks.losses.trials import describe, make_trials
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.nnet.similarity import ClippedDistance

TINY = {"channels": 8, "batch_size": 8, "number_of_epochs": 2}


def make_corpus(folder, prefix, with_sessions):
    """Noise: 16 speakers with two utterances of each session."""
    random = np.random.default_rng(0)
    lines = ["spk_id,sex,lang,split,sessions"]
    for n in range(16):
        speaker, lang = f"{prefix}{n:02}", ("xx", "yy")[n // 2 % 2]
        split = "train" if n < 4 else "test"
        sessions = ("s0", "s1") if with_sessions else (".",)
        lines.append(f"{speaker},{'mf'[n % 2]},{lang},{split},{len(sessions)}")
        for session in sessions:
            below = folder / "audio" / speaker / session
            below.mkdir(parents=True)
            for take in range(2):
                noise = random.normal(scale=0.1, size=8000)
                soundfile.write(below / f"{take}.wav", noise, 16000)
    (folder / "speakers.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def work_folder(tmp_path_factory):
    """Two corpora, one without sessions, and their features."""
    folder = tmp_path_factory.mktemp("losses")
    make_corpus(folder / "one", "a", with_sessions=True)
    make_corpus(folder / "two", "b", with_sessions=False)
    corpora = [folder / "one", folder / "two"]
    hparams = cells.HPARAMS / "ham_ecapa.yaml"
    features.prepare(corpora, folder / "work", hparams)
    features.prepare(corpora, folder / "work", hparams)  # does nothing
    with pytest.raises(InputError, match="other corpora"):
        features.prepare(corpora[:1], folder / "work", hparams)
    return folder / "work"


def test_trials_are_those_of_a_loop(work_folder):
    rows = training.select(features.read(work_folder).rows)[2]
    rows[0]["doubtful"] = True
    trials = make_trials(rows)
    pairs = np.stack([trials.first, trials.second], 1)
    found = {
        name: set(map(tuple, pairs[mask].tolist()))
        for name, mask in trials.conditions.items()
    }
    expected = {name: set() for name in found}
    for i, j in itertools.combinations(range(len(rows)), 2):
        x, y = rows[i], rows[j]
        if (x["corpus"], x["lang"]) != (y["corpus"], y["lang"]):
            continue
        names, target = {"one_session"}, x["speaker"] == y["speaker"]
        if x["corpus"] == "one":
            across = x["session"] != y["session"]
            names = {"cross"} if across or not target else set()
            names |= {"within"} if not (across and target) else set()
        sure = not (x["doubtful"] or y["doubtful"])
        if "cross" in names and sure:
            expected["cross_sure"].add((i, j))
        for name in names:
            expected[name].add((i, j))
            if name != "within" and x["sex"] == y["sex"]:
                expected[f"{name}_same_sex"].add((i, j))
    assert found == expected
    counts = list(describe(rows))
    assert counts[0]["targets"] == 12 * 4
    assert (counts[0]["languages"], counts[0]["sessions"]) == (2, 24)


def test_subsets_are_nested_and_folds_are_not(work_folder):
    rows, seen = features.read(work_folder).rows, []
    few, *_, short = training.select(rows, classes=3)
    every, _, trials, long = training.select(rows)
    some, all_of_them = ({r["speaker"] for r in x} for x in (few, every))
    assert len(some) == 3 and some < all_of_them and len(all_of_them) == 8
    assert short == long == len(every)
    assert not all_of_them & {row["speaker"] for row in trials}
    for fold in range(training.FOLDS):
        train, dev, trials, _ = training.select(rows, fold)
        held_out = {row["speaker"] for row in trials}
        assert not held_out & {row["speaker"] for row in train + dev}
        seen += held_out
    assert len(seen) == len(set(seen)) == 8


def test_every_loss_sees_the_same(work_folder, tmp_path, monkeypatch):
    """Initial encoder, crops, their order, and masks."""
    forward, seen = ECAPA_TDNN.forward, {}

    def record(encoder, features, lengths):
        if encoder.training:
            if not seen[name]:
                values = encoder.state_dict().values()
                seen[name].append(torch.cat([v.flatten() for v in values]))
            seen[name].append(features.clone())
        return forward(encoder, features, lengths)

    monkeypatch.setattr(ECAPA_TDNN, "forward", record)
    frames, rows, made_from = features.read(work_folder)
    for name in ("am", "ham", "curve", "eh_am"):
        seen[name] = []
        settings = cells.settings_of(name, made_from, TINY, "cpu")
        hparams = cells.HPARAMS / settings["hparams"]
        given = training.select(rows), frames, settings, hparams
        training.train(1, *given, tmp_path / name)
    expected = seen.pop("am")
    assert len(expected) == 1 + 2 * (24 // 8)
    for found in seen.values():
        pairs = zip(expected, found, strict=True)
        assert all(x.equal(y) for x, y in pairs)


def test_cells_and_report(work_folder, tmp_path, capsys):
    """Cells run once; the tables, the plots and the CSV file have them."""
    every = ("am", "ham:margin=0.1"), (1, 2), (None,), (4, None)
    todo = [cells.Cell(*settings) for settings in itertools.product(*every)]
    short = TINY | {"number_of_epochs": 1}
    done = [cells.run_cell(cell, work_folder, short) for cell in todo]
    assert all(text.endswith("is done") for text in done)
    assert "done before" in cells.run_cell(todo[0], work_folder, short)
    lines = (work_folder / cells.RESULTS).read_text().splitlines()
    assert len(lines) == len(todo)
    assert {"time", "commit", "seconds"} < json.loads(lines[0]).keys()
    report = Report(work_folder, "am", "cross")
    report.tables()
    assert capsys.readouterr().out.count("| ham:margin=0.1 | 2 ") == 2
    for name in ("plot", "growth", "csv"):
        getattr(report, f"write_{name}")(tmp_path / name)
    assert (tmp_path / "growth").read_bytes()[1:4] == b"PNG"
    assert len((tmp_path / "csv").read_text().splitlines()) == 1 + len(todo)
    with pytest.raises(InputError, match="has no condition crosss"):
        Report(work_folder, "am", "crosss")


def test_systems(tmp_path):
    for name in SYSTEMS:
        hparams, overrides = find_system(name)
        folders = {"data_folder": "x", "output_folder": str(tmp_path)}
        load_hparams(cells.HPARAMS / hparams, {**overrides, **folders})
    changed = find_system("am_range:margin=0.3,init_std=0.001")[1]
    assert changed == {"scale": 62, "margin": 0.3, "init_std": 0.001}
    with pytest.raises(InputError, match="no system amm"):
        find_system("amm")
    with pytest.raises(InputError, match="margin is not of the form"):
        find_system("am:margin")


@pytest.mark.parametrize("c", [1.5, 3.0])
def test_the_curve_is_the_distance_on_the_cap(c):
    vectors = [10 * torch.randn(n, 16) for n in (5, 7)]
    expected = ClippedDistance(c=c)(*vectors)
    found = CurvedCosine(c)(*vectors)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    same = vectors[0].clone().requires_grad_()
    CurvedCosine(c)(same, vectors[0]).sum().backward()
    assert same.grad.isfinite().all()


def test_seeds_that_disagree_widen_the_interval():
    same = np.full((3, 1000), 5.0)
    apart = same + [[-1], [0], [1]]
    # Two of three seeds are drawn: their mean has the variance 2/3 / 2, which
    # is that of the mean of three.
    (drawn,) = draws.over_seeds(apart)
    assert drawn.var() == pytest.approx(1 / 3, rel=0.1)
    sides = ([4] * 3, list(same - 1)), ([5] * 3, list(same))
    change, (low, high), p = draws.difference(*sides)
    assert (change, low, high) == pytest.approx((25, 25, 25)) and p < 0.01
    assert draws.difference(([4], [None]), ([5], [None])) == (25, None, None)
