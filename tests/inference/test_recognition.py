"""Against the stock class, naive formulas and explicit windows."""

import numpy as np
import pytest
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_hyperbolic import HyperbolicSpeakerRecognition
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.model import Thresholds
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore
from tests.inference.models import MEASURED, make_model, same, voice
from tests.nnet.reference import published_distances

load = HyperbolicSpeakerRecognition.from_pretrained


@pytest.fixture(scope="module")
def hyperbolic(tmp_path_factory):
    path = tmp_path_factory.mktemp("hyperbolic")
    make_model(path, score="hyperbolic", clip_c=2.0, thresholds=MEASURED)
    return load(path)


def cosine(a, b):
    a, b = np.float64(a), np.float64(b)
    return a @ b / np.sqrt((a @ a) * (b @ b))


def distance(a, b):
    a, b = (torch.from_numpy(np.float64(v))[None] for v in (a, b))
    return published_distances(a, b, c=2.0).item()


def test_same_results_as_the_stock_class(folder, model, clips, tmp_path):
    stock = SpeakerRecognition.from_hparams(str(folder), savedir=tmp_path)
    for clip in clips:
        expected = stock.encode_batch(stock.load_audio(str(clip))[None])
        found = model.embed(clip)
        same(found.vector, expected[0, 0])
        same(found.radius, expected[0, 0].norm(), 1e-5)
    one, other = (
        torch.from_numpy(np.stack([voice(i), voice(i + 1)])) for i in (0, 4)
    )
    lengths = torch.tensor([1.0, 0.7]), torch.tensor([0.6, 1.0])
    for arguments in ((one, other), (one, other, *lengths)):
        found = model.verify_batch(*arguments, threshold=0.9)
        expected = stock.verify_batch(*arguments, threshold=0.9)
        same(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    found = model.verify_files(*clips[:2], threshold=0.9)
    expected = stock.verify_files(*map(str, clips[:2]))
    same(found[0], expected[0])
    assert found[0].shape == expected[0].shape
    assert found[1].shape == expected[1].shape
    assert found[1].dtype is torch.bool


@pytest.mark.parametrize("eer", [-2.0, 2.0])
def test_decisions_by_the_models_threshold(tmp_path, clips, eer):
    """All scores are above it, or none; the stock class's constant is not."""
    make_model(tmp_path, thresholds=Thresholds(eer, {}))
    model = load(tmp_path)
    batch = torch.from_numpy(voice())[None]
    accepted = eer < 0
    assert bool(model.verify_files(*clips[:2])[1]) is accepted
    assert bool(model.verify_batch(batch, batch)[1]) is accepted
    store = VoiceprintStore(model.fingerprint)
    store.add("Ann", model.enroll(clips[:1]))
    assert (model.identify(clips[1], store).name is not None) is accepted


def test_both_ways_in_give_the_same_model(folder, model, clips, tmp_path):
    other = HyperbolicSpeakerRecognition.from_hparams(
        str(folder), savedir=tmp_path
    )
    assert other.config == model.config
    assert other.fingerprint == model.fingerprint
    assert other.threshold_at(0.01) == 0.7
    same(other.embed(clips[0]).vector, model.embed(clips[0]).vector)


def test_score_is_the_models(model, hyperbolic):
    generator = np.random.default_rng(0)
    # The clip is at 0.71: some are beyond it.
    for scale in (0.05, 0.2, 5):
        a, b = generator.normal(size=(2, 8)) * scale
        same(model.score(a, b), cosine(a, b))
        same(hyperbolic.score(a, torch.tensor(b)), -distance(a, b), 1e-5)
    embeddings = [hyperbolic.embed(voice(seed)) for seed in (0, 1)]
    score = hyperbolic.score(*embeddings)
    same(score, -distance(*(e.vector for e in embeddings)), 1e-5)
    batches = [torch.from_numpy(voice(seed))[None] for seed in (0, 1)]
    same(hyperbolic.verify_batch(*batches)[0], [[score]], 1e-4)


def test_enroll(model, clips):
    vectors = [model.embed(clip).vector for clip in clips[:3]]
    expected = np.mean([v / np.linalg.norm(v) for v in vectors], 0)
    found = model.enroll(clips[:3])
    same(found, expected)
    assert found.dtype == np.float32
    same(model.enroll([clips[0]]), vectors[0])


def test_identify(hyperbolic):
    store = VoiceprintStore(hyperbolic.fingerprint)
    for seed in range(7):
        store.add(f"speaker {seed}", hyperbolic.embed(voice(seed, 2)).vector)
    probe = voice(3, 1)
    vector = hyperbolic.embed(probe).vector
    pairs = zip(store.vectors, store.names, strict=True)
    expected = sorted((distance(v, vector), name) for v, name in pairs)[:5]
    best = -expected[0][0]
    for threshold, name in ((best - 0.01, expected[0][1]), (best + 0.01, None)):
        found = hyperbolic.identify(probe, store, threshold)
        assert found.name == name
        assert found.threshold == threshold
        assert [n for n, _ in found.ranking] == [n for _, n in expected]
        same([-s for _, s in found.ranking], [d for d, _ in expected], 1e-5)
        same(found.score, best, 1e-5)


def test_identify_refuses(model):
    for made_by, words in ((model.fingerprint, "empty"), ("x", "another mod")):
        with pytest.raises(InputError, match=words):
            model.identify(voice(), VoiceprintStore(made_by))
