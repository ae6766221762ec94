"""Degraded recordings, and the error rates over them."""

import csv
import itertools
import json

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from speechbrain.utils.checkpoints import Checkpointer

from benchmarks.robustness import conditions
from benchmarks.robustness.__main__ import main
from benchmarks.robustness.conditions import CONDITIONS, RATE, degrade
from benchmarks.robustness.corpus import degraded, find_corpus
from benchmarks.robustness.models import load_map, load_model
from benchmarks.robustness.radii import format_radii
from benchmarks.robustness.results import format_tables, read_results
from benchmarks.robustness.run import System, run, write_radii
from benchmarks.robustness.scoring import evaluate
from speechbrain_hyperbolic.dataio.synthetic import make_synthetic_corpus
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.export import stock_node, write_hyperparams
from speechbrain_hyperbolic.inference.model_folder import (
    ModelConfig,
    build_modules,
)
from speechbrain_hyperbolic.lobes.heads import CentreClassifier
from speechbrain_hyperbolic.lobes.similarity import ExactDistance
from speechbrain_hyperbolic.metrics import eer, min_dcf
from speechbrain_hyperbolic.scoring.extraction import Encoder, extract

FEW = ["clean", "noise5", "first1s"]


def voice(seed, seconds=2.0):
    """Harmonics of a gliding pitch, in syllables."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = generator.uniform(90, 220)
    phase = 2 * np.pi * pitch * (time + 0.02 * np.sin(2 * np.pi * 2 * time))
    gains = generator.uniform(0.2, 1, 15) / np.arange(1, 16)
    tones = sum(
        gain * np.sin(number * phase)
        for number, gain in enumerate(gains, start=1)
    )
    syllables = np.sin(2 * np.pi * generator.uniform(2, 4) * time) ** 2
    return 0.1 * tones * syllables + 1e-3 * generator.standard_normal(len(time))


VOICES = [voice(seed) for seed in range(8)]


def power_db(waveform, low, high):
    """The mean power density between two frequencies."""
    frequency, power = scipy.signal.welch(waveform, RATE, nperseg=1024)
    return 10 * np.log10(power[(low <= frequency) & (frequency < high)].mean())


@pytest.mark.parametrize("name", ["telephone", "mp3", "opus"])
@pytest.mark.parametrize("samples", [1600, 32001])
def test_codecs_neither_delay_nor_cut(name, samples):
    speech = VOICES[0][4000 : 4000 + samples]
    coded = degrade(name, speech, "a/1", [])
    assert coded.shape == speech.shape
    assert not np.allclose(coded, speech, atol=1e-4)
    lags = scipy.signal.correlation_lags(len(coded), len(speech))
    correlation = scipy.signal.correlate(coded, speech)
    assert abs(lags[correlation.argmax()]) <= 4  # of the 16 in a ms
    assert np.corrcoef(coded, speech)[0, 1] > 0.5


def test_telephone_band():
    white = np.random.default_rng(0).normal(scale=0.05, size=4 * RATE)
    call = conditions.telephone(white)
    level = power_db(white, 0, 8000)
    assert abs(power_db(call, 500, 3000) - level) < 1
    assert power_db(call, 4000, 8000) < level - 45
    assert power_db(call, 0, 150) < level - 20


def test_codecs_spend_the_bits_they_are_given():
    """Less of them, more of an error, which of noise is all that counts."""
    white = np.random.default_rng(0).normal(scale=0.05, size=RATE)
    for codec in (conditions.mp3, conditions.opus):
        errors = [
            np.square(codec(white, rate) - white).mean()
            for rate in (16000, 32000, 64000)
        ]
        assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


@pytest.mark.parametrize(
    "name", [name for name, c in CONDITIONS.items() if c.snr is not None]
)
def test_noise_is_at_the_ratio_asked_for(name):
    speech = VOICES[0][:20001]
    noise = degrade(name, speech, "a/1", VOICES[1:]) - speech
    ratio = 10 * np.log10(np.sum(speech**2) / np.sum(noise**2))
    assert abs(ratio - CONDITIONS[name].snr) < 0.1


def test_one_noise_at_each_level():
    speech = VOICES[0]
    loud, soft = (
        degrade(name, speech, "a/1", VOICES[1:]) - speech
        for name in ("noise5", "noise15")
    )
    np.testing.assert_allclose(loud, 10**0.5 * soft, atol=1e-5)


def test_speech_noise_is_stationary_with_the_spectrum_of_speech():
    generator = np.random.default_rng(0)
    noise = conditions.speech_noise(generator, 2 * RATE, VOICES)
    tilt = power_db(noise, 100, 1000) - power_db(noise, 4000, 8000)
    speech = np.concatenate(VOICES)
    expected = power_db(speech, 100, 1000) - power_db(speech, 4000, 8000)
    assert abs(tilt - expected) < 3
    # Syllables come and go, noise does not.
    swing = [
        np.ptp([10 * np.log10(np.mean(b**2)) for b in np.split(w, 40)])
        for w in (noise, VOICES[0])
    ]
    assert swing[0] < 6 < swing[1]


def test_room_responses():
    for seed in range(5):
        response = conditions.room_response(np.random.default_rng(seed))
        assert np.sum(response**2) == pytest.approx(1)
        assert np.argmax(np.abs(response)) == 0
        tail = response[1:]
        ratio = 10 * np.log10(response[0] ** 2 / np.sum(tail**2))
        assert -3 <= ratio <= 3
        # Schroeder's integral falls by 20 dB in a third of T60.
        left = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))
        fall = np.argmax(left < -25) - np.argmax(left < -5)
        assert 0.25 < 3 * fall / RATE < 0.9


def test_reverberation_is_a_convolution():
    generator = np.random.default_rng(0)
    speech, response = generator.normal(size=50), generator.normal(size=9)
    expected = [
        sum(response[k] * speech[n - k] for k in range(9) if n >= k)
        for n in range(50)
    ]
    found = conditions.reverberate(speech, response)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_are_the_same_again(name):
    speech = VOICES[0].astype(np.float32)
    kept = speech.copy()
    first, again, other = (
        degrade(name, speech, utterance, VOICES[1:])
        for utterance in ("a/1", "a/1", "a/2")
    )
    assert first.dtype == np.float32 and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(speech, kept)
    drawn = CONDITIONS[name].snr is not None or name == "reverb"
    assert np.array_equal(first, other) != drawn


def test_error_rates_are_those_of_the_list_of_all_trials():
    generator = torch.Generator().manual_seed(0)
    speakers = [f"s{n}" for n in range(6) for _ in range(3)]
    sexes = ["m"] * 6 + ["f"] * 9 + [""] * 3
    centres = torch.randn(6, 4, generator=generator).repeat_interleave(3, 0)
    enrol, test = (
        centres + 1.5 * torch.randn(18, 4, generator=generator)
        for _ in range(2)
    )
    scores = {(sex, same): [] for sex in (0, 1) for same in (0, 1)}
    for i in range(18):
        for j in range(18):
            if i != j:
                score = torch.cosine_similarity(enrol[i], test[j], dim=0)
                sex = sexes[i] == sexes[j] != ""
                scores[sex, speakers[i] == speakers[j]].append(float(score))
    both = [scores[0, same] + scores[1, same] for same in (1, 0)]
    found = evaluate(enrol, test, speakers, sexes)
    assert found["eer"] == pytest.approx(eer(*both)[0], abs=1e-6)
    assert found["min_dcf"] == pytest.approx(min_dcf(*both)[0], abs=1e-6)
    same_sex = eer(scores[1, 1], scores[1, 0])[0]
    assert found["eer_same_sex"] == pytest.approx(same_sex, abs=1e-6)
    assert 0.1 < found["eer"] < 0.5
    unknown = evaluate(enrol, test, speakers, [""] * 18)
    del found["draws"]["eer_same_sex"]
    assert unknown == {**found, "eer_same_sex": None}


def test_draws_of_speakers_are_those_of_repeated_trials():
    generator = torch.Generator().manual_seed(0)
    speakers = [f"s{n}" for n in range(8) for _ in range(3)]
    centres = torch.randn(8, 4, generator=generator).repeat_interleave(3, 0)
    enrol, test = (
        centres + torch.randn(24, 4, generator=generator) for _ in range(2)
    )
    drawn = evaluate(enrol, test, speakers, [""] * 24)["draws"]["eer"]
    weights = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), 1000)
    for replicate in range(20):
        times = weights[replicate]
        scores = {True: [], False: []}
        for i, j in itertools.permutations(range(24), 2):
            a, b = i // 3, j // 3
            count = times[a] if a == b else times[a] * times[b]
            score = float(torch.cosine_similarity(enrol[i], test[j], dim=0))
            scores[a == b] += [score] * count
        expected = eer(scores[True], scores[False])[0]
        assert drawn[replicate] * 1e-5 == pytest.approx(expected, abs=0.01)


def write_corpus(folder, speakers=4, utterances=3):
    for speaker in range(speakers):
        for number in range(utterances):
            path = folder / f"s{speaker}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = voice(10 * speaker + number, seconds=1.1 + 0.2 * number)
            soundfile.write(path, samples, RATE)
    return folder


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


CLIPPED = """\
classifier: !new:speechbrain_hyperbolic.lobes.heads.CentreClassifier
  input_size: 8
  out_neurons: 2
  similarity: !new:speechbrain_hyperbolic.lobes.similarity.ClippedDistance
    c: 4.0
"""
EUCLIDEAN = """\
similarity: &id1 !new:speechbrain_hyperbolic.lobes.similarity.Cosine []
classifier: !new:speechbrain_hyperbolic.lobes.heads.CentreClassifier
  input_size: 8
  similarity: *id1
"""
LEARNT = """\
epochs_to_average: 1
classifier: !new:speechbrain_hyperbolic.lobes.heads.CentreClassifier
  input_size: 8
  out_neurons: 2
  similarity: !new:speechbrain_hyperbolic.lobes.similarity.ExactDistance
  - 1.0
  - true
"""
JOINT = """\
classifier: !new:speechbrain_hyperbolic.lobes.heads.JointClassifier
- - !new:speechbrain_hyperbolic.lobes.heads.HyperbolicClassifier
    input_size: 8
    c: 5.0
  - !new:speechbrain_hyperbolic.lobes.heads.CentreClassifier
    input_size: 8
    similarity: !new:speechbrain_hyperbolic.lobes.similarity.Cosine []
"""


def write_run(folder, classifier, seed=0):
    """What a training run leaves, as far as it is read; trained by nobody."""
    arguments = {
        "input_size": 80,
        "channels": [16, 16, 16, 16, 48],
        "kernel_sizes": [5, 3, 3, 3, 1],
        "dilations": [1, 2, 3, 4, 1],
        "attention_channels": 16,
        "lin_neurons": 8,
    }
    torch.manual_seed(seed)
    modules = build_modules(ModelConfig(RATE, 80, "ecapa", arguments))
    state = modules["embedding_model"].state_dict()
    (folder / "model").mkdir(parents=True)
    torch.save(state, folder / "model" / "embedding_model.ckpt")
    stock = "speechbrain."
    normalisation = {"norm_type": "sentence", "std_norm": False}
    nodes = {
        "compute_features": stock_node(
            f"{stock}lobes.features.Fbank", {"n_mels": 80}
        ),
        "mean_var_norm": stock_node(
            f"{stock}processing.features.InputNormalization", normalisation
        ),
        "embedding_model": stock_node(
            f"{stock}lobes.models.ECAPA_TDNN.ECAPA_TDNN", arguments
        ),
    }
    write_hyperparams(nodes, folder / "model" / "hyperparams.yaml")
    (folder / "hyperparams.yaml").write_text(classifier)
    write_table(folder / "save" / "train.csv", [["spk_id"], ["s0"]])
    return folder


@pytest.fixture
def setup(tmp_path):
    """Systems, their corpus, and where results go."""
    data_folder = write_corpus(tmp_path / "corpus")
    folders = [
        write_run(tmp_path / "ham.1", CLIPPED, 1),
        write_run(tmp_path / "am.1", EUCLIDEAN, 2),
    ]
    corpus = find_corpus(data_folder, folders)
    systems = [System(f, corpus, tmp_path / "cache", "cpu") for f in folders]
    return systems, corpus, tmp_path / "results.jsonl"


def test_whom_is_tested(tmp_path, caplog):
    folder = write_run(tmp_path / "ham.1", CLIPPED)
    data_folder = write_corpus(tmp_path / "corpus")
    corpus = find_corpus(data_folder, [folder], utterances_per_speaker=2)
    assert [*corpus.paths] == [f"s{s}/{n}" for s in (1, 2, 3) for n in (0, 1)]
    assert corpus.speakers == [f"s{s}" for s in (1, 2, 3) for _ in (0, 1)]
    assert set(corpus.sexes) == {""} and corpus.name == "corpus"
    rows = [["spk_id", "sex", "split"], ["s0", "f", "test"]]
    rows += [["s1", "m", "train"], ["s3", "m", "test"]]
    table = write_table(tmp_path / "speakers.csv", rows)
    corpus = find_corpus(data_folder, [folder], table, 0)
    assert [*corpus.paths] == [f"s{s}/{n}" for s in (0, 3) for n in range(3)]
    assert corpus.sexes == [*"fffmmm"]
    assert "1 test speakers" in caplog.text and "e.g. s0" in caplog.text


def test_synthetic_corpus_is_called_so(tmp_path):
    data_folder = make_synthetic_corpus(
        tmp_path / "corpus",
        progress=False,
        n_train=2,
        n_test=2,
        utterances=(2, 2),
    )
    corpus = find_corpus(data_folder, [write_run(tmp_path / "a.1", CLIPPED)])
    assert corpus.name.startswith("corpus (synthetic speech")
    assert len(corpus.paths) == 8 and set(corpus.sexes) == {"m", "f"}


def test_babble_is_of_other_speakers(tmp_path):
    data_folder = write_corpus(tmp_path / "corpus", speakers=3)
    folder = write_run(tmp_path / "ham.1", CLIPPED)
    corpus = find_corpus(data_folder, [folder])
    assert set(corpus.speakers) == {"s1", "s2"}
    clean, noisy = (
        [w.numpy() for w in degraded(corpus, name)]
        for name in ("clean", "babble10")
    )
    others = dict(zip(corpus.paths, clean, strict=True))
    for utterance, speech, mixed in zip(
        corpus.paths, clean, noisy, strict=True
    ):
        other = "s2/0" if utterance.startswith("s1") else "s1/0"
        noise = mixed - speech
        match = scipy.signal.correlate(noise, others[other][:8000])
        own = scipy.signal.correlate(noise, others[utterance[:3] + "0"][:8000])
        assert np.abs(match).max() > 1.5 * np.abs(own).max()


def test_embeddings_are_those_of_the_package(setup):
    systems, corpus, _ = setup
    embeddings, seconds = systems[0].embed("clean")
    expected = extract(Encoder(**systems[0].model.modules), corpus.paths)
    torch.testing.assert_close(
        embeddings, expected.views[:, 0], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(seconds, expected.durations)
    _, seconds = systems[0].embed("first1s")
    assert set(seconds) == {1.0}


def test_results_say_what_was_measured(setup):
    systems, corpus, path = setup
    run(systems, corpus, path, FEW)
    results = read_results(path)
    assert [(r["condition"], r["loss"], r["seed"]) for r in results] == [
        (condition, loss, 1) for condition in FEW for loss in ("ham", "am")
    ]
    clean, test = (systems[0].embed(name)[0] for name in ("clean", "noise5"))
    expected = evaluate(clean, test, corpus.speakers, corpus.sexes)
    assert {k: results[2][k] for k in expected} == expected
    assert (results[0]["n_speakers"], results[0]["n_utterances"]) == (3, 9)
    run(systems[:1], corpus, path, ["noise5"], matched=True)
    expected = evaluate(test, test, corpus.speakers, corpus.sexes)
    last = read_results(path)[-1]
    assert last["enrolment"] == "matched" and last["eer"] == expected["eer"]


def test_a_killed_run_goes_on(setup):
    systems, corpus, path = setup
    run(systems, corpus, path, FEW)
    whole = path.read_bytes()
    run(systems, corpus, path, FEW)
    assert path.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    assert len(read_results(path)) == 3
    run(systems, corpus, path, FEW)
    assert path.read_bytes() == whole


def test_other_weights_are_measured_again(setup, tmp_path):
    systems, corpus, path = setup
    run(systems[:1], corpus, path, ["clean"])
    folder = write_run(tmp_path / "again" / "ham.1", CLIPPED, seed=7)
    again = System(folder, corpus, tmp_path / "cache", "cpu")
    run([again], corpus, path, ["clean"])
    first, second = read_results(path)
    assert first["model"] == second["model"]
    assert first["weights"] != second["weights"]
    rate = f"| {100 * second['eer']:.2f} |"
    assert rate in format_tables([first, second])


def test_radii(setup, tmp_path):
    systems, corpus, _ = setup
    maps = [load_map(system.folder) for system in systems]
    path = tmp_path / "radius.csv"
    write_radii(systems, maps, corpus, path, FEW)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(FEW) * len(corpus.paths)
    embeddings = {
        (s.model.name, c, u): e
        for s in systems
        for c in FEW
        for u, e in zip(corpus.paths, s.embed(c)[0], strict=True)
    }
    for row in rows:
        key = row["model"], row["condition"], row["utterance"]
        norm = embeddings[key].norm().item()
        assert float(row["norm"]) == pytest.approx(norm, rel=1e-5)
        assert row["snr"] == ("5" if row["condition"] == "noise5" else "")
        if row["loss"] == "am":
            assert not row["radius"]
            continue
        # A ball's radius of 1/2 is 2 artanh(1/2).
        radius = 2 * np.arctanh(min(norm, 0.5))
        assert float(row["scaled_norm"]) == pytest.approx(norm, rel=1e-5)
        assert float(row["radius"]) == pytest.approx(radius, rel=1e-4)
        assert float(row["cap"]) == pytest.approx(np.log(3), rel=1e-4)


def test_maps_of_runs(tmp_path):
    assert load_map(write_run(tmp_path / "am.1", EUCLIDEAN)) is None
    assert load_map(write_run(tmp_path / "joint.1", JOINT)).c == 5
    folder = write_run(tmp_path / "learnt.1", LEARNT)
    head = CentreClassifier(8, out_neurons=2, similarity=ExactDistance(1, True))
    head.similarity._curvature.theta.data.fill_(0.5)
    Checkpointer(folder / "save", {"classifier": head}).save_checkpoint()
    found = load_map(folder).curvature.item()
    assert found == pytest.approx(10 ** (0.5 / 1.5), rel=1e-5)


def result(loss, seed, condition, rate, **other):
    return {
        **dict(model=f"{loss}.{seed}", loss=loss, seed=seed, weights="w"),
        **dict(condition=condition, enrolment="clean", corpus="x", data="d"),
        **dict(n_speakers=3, n_utterances=9, utterances_per_speaker=3),
        **dict(commit="c", machine="m"),
        **dict(eer=rate, eer_same_sex=None, min_dcf=10 * rate),
        **other,
    }


def test_tables():
    results = [
        result("ham", 1, "clean", 0.02),
        result("ham", 2, "clean", 0.04),
        result("ham", 1, "mp3", 0.05),
        result("ham", 2, "mp3", 0.04),
        result("am", 1, "clean", 0.0625),
        result("am", 1, "clean", 0.5, corpus="y (synthetic speech)"),
    ]
    tables = format_tables(results)
    assert "| EER % | seeds | clean | mp3 |" in tables
    deviation = np.std([2, 4], ddof=1)
    assert (
        f"| ham | 2 | 3.00 ± {deviation:.2f} | 4.50 ± 0.71 (+50%) |" in tables
    )
    assert "| am | 1 | 6.25 |  |" in tables
    assert "against am" not in tables  # without draws
    assert "| ham | 2 | 0.300 ± 0.141 | 0.450 ± 0.071 (+50%) |" in tables
    assert "same-sex" not in tables
    assert "### y (synthetic speech)" in tables
    assert "9 utterances of 3 speakers (the first 3 of each)" in tables


def test_differences_to_the_baseline():
    drawn = np.random.default_rng(0).uniform(0.08, 0.12, size=(2, 1000))
    results = [
        result(loss, seed, "clean", rate, draws={"eer": draws})
        for seed in (0, 1)
        for loss, rate, draws in (
            ("am", 0.1, [round(x * 1e5) for x in drawn[seed]]),
            ("ham", 0.09, [round(0.9 * x * 1e5) for x in drawn[seed]]),
        )
    ]
    alone = result("ham", 2, "clean", 0.5, draws={"eer": [50000] * 1000})
    tables = format_tables([*results, alone])
    assert "EER against am, relative" in tables
    assert "| ham | -10.0 % (-10.0 to -10.0), 0.002 |" in tables
    tables = format_tables([*results, alone], "ham")
    assert "EER against ham, relative" in tables
    assert "| am | +11.1 % (+11.1 to +11.1), 0.002 |" in tables


def test_command(tmp_path, capsys):
    data_folder = write_corpus(tmp_path / "corpus")
    folder = write_run(tmp_path / "ham.1", CLIPPED)
    main(
        [str(folder), f"--data_folder={data_folder}"]
        + [f"--results={tmp_path / 'r.jsonl'}", "--conditions", "clean", "opus"]
        + [f"--cache_folder={tmp_path / 'cache'}", "--device=cpu"]
        + [f"--radius={tmp_path / 'radius.csv'}"]
    )
    printed = capsys.readouterr().out
    assert "| EER % | seeds | clean | opus |" in printed
    assert (tmp_path / "radius.csv").is_file()
    main(["table", str(tmp_path / "r.jsonl"), "--against", "am"])
    assert capsys.readouterr().out == printed


def test_clear_errors(tmp_path):
    data_folder = write_corpus(tmp_path / "corpus", speakers=2)
    folder = write_run(tmp_path / "ham.1", CLIPPED)
    with pytest.raises(InputError, match="3 utterances of 1 test speakers"):
        find_corpus(data_folder, [folder])
    table = write_table(tmp_path / "t.csv", [["spk_id"], ["s0"]])
    with pytest.raises(InputError, match="t.csv has no column split"):
        find_corpus(data_folder, [folder], table)
    with pytest.raises(InputError, match="none.csv is missing"):
        find_corpus(data_folder, [folder], tmp_path / "none.csv")
    with pytest.raises(InputError, match="train.csv is missing: name the"):
        find_corpus(data_folder, [tmp_path])
    with pytest.raises(InputError, match="hyperparams.yaml is missing"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="2 OUTPUT_FOLDERs are named ham.1"):
        main([str(folder), f"{folder}/", f"--data_folder={data_folder}"])
    yaml = folder / "model" / "hyperparams.yaml"
    yaml.write_text(yaml.read_text().replace("ECAPA_TDNN.ECAPA", "X.Other"))
    with pytest.raises(InputError, match="expected ECAPA_TDNN or Xvector"):
        load_model(folder)
    (folder / "hyperparams.yaml").write_text(CLIPPED + "  lin_blocks: 1\n")
    with pytest.raises(InputError, match="lin_blocks, expected none"):
        load_map(folder)


def test_files_of_results_that_are_none(tmp_path):
    path = tmp_path / "r.jsonl"
    with pytest.raises(InputError, match="r.jsonl is missing"):
        read_results(path)
    path.write_text("{}\n")
    with pytest.raises(InputError, match="line 1 has no model"):
        read_results(path)
    path.write_text(json.dumps(result("a", 1, "clean", 0.1)) + "\n7\n{}")
    with pytest.raises(InputError, match="line 2 is no JSON object"):
        read_results(path)
    path.write_text("")
    with pytest.raises(InputError, match="there are no results"):
        format_tables(read_results(path))


def test_radii_table(tmp_path):
    """Of a file that is made so that the correlations are known."""
    rng = np.random.default_rng(0)
    header = "model,loss,seed,utterance,speaker,condition,seconds,snr"
    lines = [header + ",likeness,norm,scaled_norm,radius,cap"]
    for number in range(60):
        seconds = 1 + number / 10
        like = rng.random()
        for condition, snr, factor in (
            ("clean", "", 1.0),
            ("noise5", 5, 0.5),
            ("first1s", "", 2.0),
        ):
            norm = factor * (10 - seconds)
            lines.append(
                f"a.1,a,1,u{number},s{number % 12},{condition},{seconds},{snr},"
                f"{like},{norm},{norm},1.3,1.3"
            )
    path = tmp_path / "radii.csv"
    path.write_text("\n".join(lines) + "\n")
    _, _, of_norm, of_radius = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in format_radii(path).splitlines()
    ]
    assert of_norm[:2] == ["a", "norm"]
    assert of_norm[2] == "-1.00 (-1.00 to -1.00)"
    assert float(of_norm[3].split()[0]) > 0.5
    # All noisy ones are shorter than when clean, all cut ones longer.
    assert of_norm[6] == "100%; 0%"
    assert of_radius[:6] == ["a", "radius", *["all alike"] * 4]
    with pytest.raises(InputError, match="missing"):
        format_radii(tmp_path / "none.csv")
