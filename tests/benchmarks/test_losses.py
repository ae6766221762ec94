"""The comparison of losses: its draws of speakers, its cells, its tables."""

import json
import pathlib

import numpy as np
import pytest
from speechbrain import Stage

from benchmarks import draws
from benchmarks.losses import cells, features, report, scoring, training
from benchmarks.losses.systems import EUCLIDEAN, HYPERBOLIC, SYSTEMS
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.metrics import eer, min_dcf
from speechbrain_hyperbolic.training import SpeakerBrain

HPARAMS = pathlib.Path(__file__).parents[2] / "hparams"
TINY = {
    "channels": 8,
    "batch_size": 4,
    "number_of_epochs": 2,
    "epochs_to_average": 2,
}


def make_embeddings(seed=0, n_speakers=20, utterances=6, spread=1.2):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_speakers, 1, 8))
    noise = spread * rng.normal(size=(n_speakers, utterances, 8))
    names = [f"s{number:02}" for number in range(n_speakers)]
    rows = [{"speaker": n} for n in names for _ in range(utterances)]
    speakers = {
        n: {"sex": "mf"[i % 2], "age_group": "xyz"[i % 3]}
        for i, n in enumerate(names)
    }
    return (centres + noise).reshape(-1, 8), rows, speakers


def trials_of(embeddings, rows):
    """Each pair once, by a loop: score, and the two speakers."""
    found = []
    for i, x in enumerate(embeddings):
        for j in range(i):
            y = embeddings[j]
            score = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
            found.append((score, rows[i]["speaker"], rows[j]["speaker"]))
    return found


def split(trials, times=None):
    classes = [], []
    for score, a, b in trials:
        count = 1 if times is None else times[a] * (1 if a == b else times[b])
        classes[a != b].extend([score] * count)
    return classes


class TestMeasure:
    def test_rates_of_a_loop(self):
        embeddings, rows, speakers = make_embeddings()
        metrics, _ = scoring.measure(embeddings, rows, speakers)
        trials = trials_of(embeddings, rows)
        columns = {
            "all": None,
            "same_sex": "sex",
            "same_age_group": "age_group",
        }
        assert metrics.keys() == columns.keys()
        for subset, column in columns.items():
            kept = [
                (score, a, b)
                for score, a, b in trials
                if column is None or speakers[a][column] == speakers[b][column]
            ]
            target, nontarget = split(kept)
            assert metrics[subset]["n_target"] == len(target)
            assert metrics[subset]["n_nontarget"] == len(nontarget)
            # Scores in another order of summation: a trial may change places
            assert metrics[subset]["eer"] == pytest.approx(
                eer(target, nontarget)[0], abs=1e-3
            )
            assert metrics[subset]["min_dcf"] == pytest.approx(
                min_dcf(target, nontarget, 0.01)[0], abs=5e-3
            )

    def test_draws_are_those_of_repeated_trials(self):
        embeddings, rows, speakers = make_embeddings()
        _, draws = scoring.measure(embeddings, rows, speakers)
        names = sorted(speakers)
        weights = np.random.default_rng(0).multinomial(
            len(names), np.full(len(names), 1 / len(names)), size=1000
        )
        trials = trials_of(embeddings, rows)
        for number in range(5):
            times = dict(zip(names, weights[number], strict=True))
            target, nontarget = split(trials, times)
            drawn = {k: v[number] * 1e-5 for k, v in draws["all"].items()}
            # Between 2,000 thresholds a rate changes by 0.001 at most.
            assert drawn["eer"] == pytest.approx(
                eer(target, nontarget)[0], abs=2e-3
            )
            assert drawn["min_dcf"] == pytest.approx(
                min_dcf(target, nontarget, 0.01)[0], abs=2e-2
            )

    def test_subsets_need_a_column(self):
        embeddings, rows, _ = make_embeddings()
        metrics, draws = scoring.measure(embeddings, rows, {})
        assert metrics.keys() == draws.keys() == {"all"}

    def test_a_blank_is_no_sex(self):
        embeddings, rows, speakers = make_embeddings()
        for name in sorted(speakers)[:10]:
            speakers[name]["sex"] = ""
        metrics, _ = scoring.measure(embeddings, rows, speakers)
        # Of ten known ones, two groups of five
        assert metrics["same_sex"]["n_target"] == 10 * 15
        assert metrics["same_sex"]["n_nontarget"] == 2 * 10 * 36


def test_as_many_candidates_of_either_family():
    assert len(EUCLIDEAN) == len(HYPERBOLIC)


@pytest.fixture
def corpus():
    rng = np.random.default_rng(0)
    rows, position = [], 0
    for number in range(16):
        for utterance in range(4):
            part = ("train", "train", "dev", "train")[utterance]
            part = "test" if number >= 6 else part
            for copy in range(3 if part == "train" else 1):
                length = 150 if utterance == 0 else 260
                rows.append(
                    {
                        "id": f"s{number:02}/{utterance}",
                        "speaker": f"s{number:02}",
                        "part": part,
                        "copy": copy,
                        "start": position,
                        "stop": position + length,
                    }
                )
                position += length
    frames = rng.normal(size=(position, 80)).astype(np.float16)
    return features.Features(frames, rows, {})


class TestTraining:
    def test_test_speakers_never_train(self, corpus):
        train, dev, trials = training.select(corpus)
        test = {row["speaker"] for row in trials}
        assert test == {f"s{number:02}" for number in range(6, 16)}
        assert not test & {row["speaker"] for row in train + dev}

    def test_folds_part_the_training_speakers(self, corpus):
        seen = []
        for fold in range(training.FOLDS):
            train, dev, trials = training.select(corpus, fold)
            held_out = {row["speaker"] for row in trials}
            assert not held_out & {row["speaker"] for row in train + dev}
            assert all(row["copy"] == 0 for row in trials)
            seen += held_out
        assert sorted(seen) == [f"s0{n}" for n in range(6)]

    def test_crops_are_of_the_seed_and_inside_their_row(self, corpus):
        train, _, _ = training.select(corpus)
        numbered = corpus.frames.copy()
        numbered[:] = np.arange(len(numbered))[:, None] % 2048  # exact there
        spans = {}
        for row in train:
            numbers = np.arange(row["start"], row["stop"]) % 2048
            spans.setdefault(row["id"], []).append((row["copy"], set(numbers)))

        def batches(seed):
            crops = training.Crops(
                numbered,
                train,
                lambda s: int(s[1:]),
                batch_size=4,
                draw=lambda: np.random.default_rng(seed),
            )
            return list(crops)

        copies = set()
        for seed in range(10):
            for batch in batches(seed):
                assert batch.sig.data.shape[1:] == (200, 80)
                for name, crop in zip(batch.id, batch.sig.data, strict=True):
                    used = set(crop[:, 0].tolist())
                    of = [c for c, span in spans[name] if used <= span]
                    assert of
                    copies.update(of)
        assert copies == {0, 1, 2}
        again, other = batches(3), batches(4)
        for one, two in zip(batches(3), again, strict=True):
            assert one.id == two.id
            assert one.sig.data.equal(two.sig.data)
        assert [b.id for b in again] != [b.id for b in other]

    def test_no_batch_of_one(self, corpus):
        train, _, _ = training.select(corpus)
        crops = training.Crops(
            corpus.frames,
            train,
            lambda s: 0,
            batch_size=17,
            draw=lambda: np.random.default_rng(0),
        )
        assert [len(batch.id) for batch in crops] == [17]
        assert len(crops) == 1

    def test_cell_gives_the_folder_of_the_recipe(
        self, corpus, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(training, "SMALL", TINY)
        seen = {}
        for name in ("am", "ham_c3"):
            folder = tmp_path / name
            with monkeypatch.context() as patch:
                inputs = record_inputs(patch)
                found, _, resumed = training.train(
                    SYSTEMS[name], 1, corpus, None, HPARAMS, folder
                )
            seen[name] = inputs
            assert found.shape == (40, 192)
            assert not resumed
            assert (folder / "model/hyperparams.yaml").is_file()
            assert (folder / "save/label_encoder.txt").is_file()
            assert (folder / "save/train.csv").is_file()
            log = (folder / "train_log.txt").read_text().splitlines()
            assert len(log) == 2
        # The same crops, in the same order, under the same masks, to an
        # encoder that begins with the same weights.
        (encoder, batches), (other, others) = seen["am"], seen["ham_c3"]
        assert encoder.keys() == other.keys()
        assert all(encoder[key].equal(other[key]) for key in encoder)
        assert len(batches) == len(others) == 2 * 5
        assert all(x.equal(y) for x, y in zip(batches, others, strict=True))

    def test_an_interrupted_cell_is_what_it_would_have_been(
        self, corpus, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(training, "SMALL", TINY)

        def run(folder):
            return training.train(
                SYSTEMS["am"], 1, corpus, None, HPARAMS, tmp_path / folder
            )

        whole, _, _ = run("whole")
        with monkeypatch.context() as patch:
            patch.setattr(training, "SMALL", {**TINY, "number_of_epochs": 1})
            run("halved")
        halved, _, resumed = run("halved")
        assert resumed
        np.testing.assert_array_equal(halved, whole)
        changed = SYSTEMS["am"]._replace(overrides={"margin": 0.9})
        with pytest.raises(InputError, match="margin"):
            training.train(
                changed, 1, corpus, None, HPARAMS, tmp_path / "halved"
            )

    def test_too_few_speakers_are_refused_before_training(
        self, corpus, tmp_path
    ):
        with pytest.raises(InputError, match="2 speakers"):
            training.train(
                SYSTEMS["am"], 1, corpus, 0, HPARAMS, tmp_path / "few"
            )
        assert not (tmp_path / "few").exists()


def record_inputs(patch):
    """The encoder's weights before, and all that it is trained on."""
    weights, batches = {}, []
    forward = SpeakerBrain.compute_forward

    def compute_forward(brain, batch, stage):
        encoder = brain.hparams.embedding_model
        if not weights:
            state = encoder.state_dict()
            weights.update({k: v.clone() for k, v in state.items()})

        def hook(module, inputs):
            if stage == Stage.TRAIN:
                batches.append(inputs[0].clone())

        handle = encoder.register_forward_pre_hook(hook)
        try:
            return forward(brain, batch, stage)
        finally:
            handle.remove()

    patch.setattr(SpeakerBrain, "compute_forward", compute_forward)
    return weights, batches


SETTINGS = {"features": {"corpus": "made"}}


def result(system, seed, draws, fold=None):
    values = {"eer": np.mean(draws) * 1e-5, "min_dcf": 0.5}
    return {
        "system": system,
        "seed": seed,
        "fold": fold,
        "corpus": "made",
        "settings": SETTINGS,
        "commit": "0000000",
        "machine": "a machine",
        "seconds": 60,
        "metrics": {"all": {**values, "n_target": 10, "n_nontarget": 90}},
        "draws": {"all": {"eer": list(draws), "min_dcf": [50000] * len(draws)}},
    }


class TestCells:
    def test_a_cell_is_one_process_s(self, tmp_path):
        with cells.claimed(tmp_path / "a") as first:
            with cells.claimed(tmp_path / "a") as second:
                assert (first, second) == (True, False)
        with cells.claimed(tmp_path / "a") as third:
            assert third

    def test_results_are_never_overwritten(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cells, "settings_of", lambda *_: SETTINGS)
        path = tmp_path / "cells" / "am.1.jsonl"
        path.parent.mkdir()
        before = json.dumps(result("am", 1, [5000])) + "\n"
        path.write_text(before)
        # There is no corpus: it would fail if it began.
        cells.run_cell("am", 1, None, tmp_path / "none", tmp_path)
        assert path.read_text() == before
        monkeypatch.setattr(cells, "settings_of", lambda *_: {"margin": 1})
        with pytest.raises(InputError, match="am.1.jsonl was measured with"):
            cells.run_cell("am", 1, None, tmp_path / "none", tmp_path)

    def test_results_of_files_and_folders(self, tmp_path):
        lines = [json.dumps(result("am", n, [5000])) + "\n" for n in range(3)]
        (tmp_path / "a.jsonl").write_text(lines[0])
        (tmp_path / "b.jsonl").write_text(lines[1] + lines[2])
        found = cells.read_results([tmp_path])
        assert [r["seed"] for r in found] == [0, 1, 2]

    @pytest.mark.parametrize(
        "lines, message",
        [
            ([], "there are no results"),
            (['{"system": "am", "se'], "line 1 is no result"),
            ([json.dumps(result("amm", 1, [1]))], "amm is no system of ours"),
            ([json.dumps(result("am", 1, [1]))] * 2, "am.1 is there twice"),
        ],
    )
    def test_bad_results(self, tmp_path, lines, message):
        path = tmp_path / "a.jsonl"
        path.write_text("".join(line + "\n" for line in lines))
        with pytest.raises(InputError, match=message):
            cells.read_results([path])

    def test_a_missing_file_of_results(self, tmp_path):
        with pytest.raises(InputError, match="none.jsonl is missing"):
            cells.read_results([tmp_path / "none.jsonl"])


class TestReport:
    def test_a_pair_that_differs_and_one_that_does_not(self, capsys, tmp_path):
        rng = np.random.default_rng(0)
        speakers = rng.normal(scale=400, size=1000)  # shared by all
        results = [
            result(
                name, seed, (level + speakers + rng.normal(0, 20, 1000)).round()
            )
            for name, level in (("am", 6000), ("aam", 6000), ("ham_c3", 5000))
            for seed in (1, 2, 3)
        ]
        for cell in results[:4]:
            cell["features"] = "00112233aabb"
        report.write(results, tmp_path / "plot.png")
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == (
            "features: 00112233aabb (4 cells), not recorded (5 cells)"
        )
        (line,) = [s for s in lines if s.startswith("| HAM, c = 3 | -")]
        # 5000 against 6000, whatever the speakers drawn; the least p of 1,000
        assert line.split("|")[2].split()[0] == "-16.7"
        assert line.split("|")[2].split()[-1] == "0.002"
        # In the table of means, then in that of differences
        (_, line) = [s for s in lines if s.startswith("| AAM |")]
        assert float(line.split("|")[2].split()[-1]) > 0.05
        assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"

    def test_no_errors_and_one_seed(self, capsys):
        none = np.zeros(100, int)
        report.write(
            [
                result(name, seed, none)
                for name in ("am", "ham_c3")
                for seed in (1, 2)
            ]
            + [result("h", 1, none)]
        )
        out = capsys.readouterr().out
        assert "| HAM, c = 3 | +0.00 points, 1.000 |" in out
        assert "| H, c = 5 | +0.00 points, one seed |" in out

    def test_draws_without_a_class_do_not_count(self):
        values = np.array([[5.0, np.nan], [5.0, np.nan]])
        (drawn,) = draws.over_draws(draws.Runs(values[:, 0], values))
        assert draws.interval(drawn).tolist() == [5, 5]
        assert draws.p_value(np.array([1.0, np.nan, 1.0])) == 2 / 3

    def test_corpora_are_not_mixed(self):
        other = result("ham_c3", 1, [5000])
        other["settings"] = {"features": {"corpus": "other"}}
        with pytest.raises(InputError, match="several corpora"):
            report.write([result("am", 1, [5000]), other])

    def test_seeds_that_disagree_widen_the_interval(self):
        values = np.full((3, 1000), 5.0)
        same = draws.Runs(values.mean(axis=1), values)
        apart = draws.Runs(values[:, 0], values + [[-1], [0], [1]])
        # Of three seeds, two are drawn: their mean has the variance 2/3 / 2,
        # which is that of the mean of three, 1 / 3.
        drawn = draws.over_draws(apart)[0]
        assert drawn.var() == pytest.approx(1 / 3, rel=0.1)
        low, high = draws.interval(draws.over_draws(same)[0])
        assert low == high == 5
        low, high = draws.interval(draws.over_draws(apart)[0])
        assert low < 4.5 and high > 5.5
