"""Scores against loops, files against the stock format."""

import numpy as np
import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

from speechbrain_hyperbolic.dataio.trials import Trial
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.verification import (
    Encoder,
    embed,
    evaluate_trials,
    format_results,
    locate,
    read_results,
    read_scores,
    score_trials,
    write_results,
    write_scores,
)
from tests.dataio.test_corpus import add
from tests.reference import published_distances


@pytest.fixture
def embeddings():
    generator = torch.Generator().manual_seed(0)
    names = [f"{s}/{i}" for s in "abc" for i in range(3)]
    scales = torch.logspace(-2, 1, 9).unsqueeze(1)
    matrix = scales * torch.randn(9, 6, generator=generator)
    return dict(zip(names, matrix, strict=True))


@pytest.fixture
def trials(embeddings):
    names = list(embeddings)
    return [
        Trial(int(a[0] == b[0]), a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]


def test_cosine_scores(trials, embeddings):
    expected = [
        float(embeddings[t.enrol] @ embeddings[t.test])
        / float(embeddings[t.enrol].norm() * embeddings[t.test].norm())
        for t in trials
    ]
    np.testing.assert_allclose(
        score_trials(trials, embeddings), expected, atol=1e-6
    )


@pytest.mark.parametrize("c", [1.5, 3.0])
def test_hyperbolic_scores(trials, embeddings, c):
    expected = [
        -published_distances(
            embeddings[t.enrol][None].double(),
            embeddings[t.test][None].double(),
            c,
        ).item()
        for t in trials
    ]
    np.testing.assert_allclose(
        score_trials(trials, embeddings, "hyperbolic", c), expected, rtol=1e-8
    )


def test_unknown_score(trials, embeddings):
    with pytest.raises(InputError, match="score is 'plda', expected one of"):
        score_trials(trials, embeddings, "plda")


def test_broken_embedding_is_named(trials, embeddings):
    embeddings["b/1"][0] = float("nan")
    with pytest.raises(InputError, match="b/1 is not finite .1 of 9"):
        score_trials(trials, embeddings)


def test_missing_audio_is_named(tmp_path):
    add(tmp_path, "a/1.wav", "b/1.flac")
    trials = [Trial(0, "a/1", "b/1"), Trial(1, "a/1", "a/2")]
    with pytest.raises(InputError, match="trial 2: a/2 .*1 of 3") as caught:
        locate(trials, tmp_path, "list.txt")
    assert "list.txt" in str(caught.value)
    assert locate(trials[:1], tmp_path, "list.txt") == {
        "a/1": tmp_path / "a/1.wav",
        "b/1": tmp_path / "b/1.flac",
    }


def test_scores_file(tmp_path, trials, embeddings):
    """The stock script's format: "%s %s %i %f\\n"."""
    scores = score_trials(trials, embeddings)
    path = tmp_path / "scores.txt"
    write_scores(trials, scores, path)
    expected = "".join(
        "%s %s %i %f\n" % (t.enrol, t.test, t.label, s)  # noqa: UP031
        for t, s in zip(trials, scores, strict=True)
    )
    assert path.read_text() == expected
    read, labels = read_scores(path)
    np.testing.assert_allclose(read, scores, atol=1e-6)
    assert labels.tolist() == [t.label for t in trials]


def test_results(tmp_path, trials):
    """EER of all and of the same-sex trials, counted by hand."""
    # a and b are of one sex; the only errors are between b and c.
    scores = np.array(
        [1.0 if t.label or {t.enrol[0], t.test[0]} == {"b", "c"} else 0.0
         for t in trials]
    )  # fmt: skip
    sexes = {"a": {"sex": "f"}, "b": {"sex": "f"}, "c": {"sex": "m"}}
    results = evaluate_trials(trials, scores, sexes, replicates=10)
    assert results["same-sex trials"]["eer"] == 0
    assert results["same-sex trials"]["n_target"] == 9
    assert results["same-sex trials"]["n_nontarget"] == 9
    # 9 of 27 impostor trials tie with the targets: m = f on the line between
    # (0, 1/3) and (1, 0).
    assert results["all trials"]["eer"] == pytest.approx(0.25)
    assert list(evaluate_trials(trials, scores, {}, 10)) == ["all trials"]
    write_results(results, tmp_path / "r.json")
    assert read_results(tmp_path / "r.json") == results
    table = format_results(results)
    assert "| all trials      | 9 + 27 | 25.00 |" in table


def test_an_empty_sex_is_unknown(trials):
    scores = np.arange(len(trials), dtype=float)
    sexes = {speaker: {"sex": ""} for speaker in "abc"}
    assert list(evaluate_trials(trials, scores, sexes, 10)) == ["all trials"]


def test_shortest_utterances_are_repeated(tmp_path):
    """10 ms is less than the convolutions of an ECAPA need."""
    add(tmp_path, "a/1.wav", seconds=0.01)
    encoder = Encoder(
        Fbank(n_mels=80),
        InputNormalization(norm_type="sentence", std_norm=False),
        ECAPA_TDNN(80, channels=[16, 16, 16, 16, 48], lin_neurons=8),
    )
    embedding = embed(encoder, {"a/1": tmp_path / "a/1.wav"})["a/1"]
    assert embedding.shape == (8,) and embedding.isfinite().all()


def test_embedding_does_not_depend_on_the_list(tmp_path):
    add(tmp_path, "a/1.wav", seconds=0.7)
    add(tmp_path, "a/2.wav", seconds=2.0, rate=8000)
    torch.manual_seed(0)

    class MeanModel(torch.nn.Module):
        def forward(self, features, lengths):
            return features.std(1, keepdim=True)

    encoder = Encoder(
        Fbank(n_mels=20),
        InputNormalization(norm_type="sentence", std_norm=False),
        MeanModel(),
    )
    paths = {"a/1": tmp_path / "a/1.wav", "a/2": tmp_path / "a/2.wav"}
    both = embed(encoder, paths)
    alone = embed(encoder, {"a/2": paths["a/2"]})
    assert both["a/1"].shape == (20,)
    torch.testing.assert_close(both["a/2"], alone["a/2"], rtol=0, atol=0)
