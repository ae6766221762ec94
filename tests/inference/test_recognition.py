"""Against the stock class, naive formulas and explicit windows."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference import (
    HyperbolicSpeakerRecognition,
    VoiceprintStore,
)
from speechbrain_hyperbolic.inference.model_folder import Thresholds
from speechbrain_hyperbolic.scoring.extraction import Encoder
from tests.dataio.test_audio import EXTENSIONS, tone, write
from tests.inference.test_model_folder import ARGUMENTS, make

RATE = 16000
THRESHOLDS = Thresholds(0.5, {"0.1": 0.4, "0.01": 0.7})
STOCK_YAML = """\
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
    sample_rate: 16000
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
{arguments}
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""


def voice(seed=0, seconds=1.0, rate=RATE):
    """Noise in a colour of its own."""
    generator = np.random.default_rng(seed)
    noise = generator.uniform(-0.5, 0.5, round(seconds * rate))
    smooth = np.convolve(noise, generator.normal(size=8) / 4, "same")
    return smooth.astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    _, encoder = make(path, thresholds=THRESHOLDS)
    arguments = "\n".join(
        f"    {k}: {v}" for k, v in ARGUMENTS["ecapa"].items()
    )
    (path / "hyperparams.yaml").write_text(
        STOCK_YAML.format(arguments=arguments)
    )
    torch.save(encoder.state_dict(), path / "embedding_model.ckpt")
    return path


@pytest.fixture(scope="module")
def model(folder):
    return HyperbolicSpeakerRecognition.from_pretrained(folder)


@pytest.fixture(scope="module")
def hyperbolic(tmp_path_factory):
    path = tmp_path_factory.mktemp("hyperbolic")
    make(path, score="hyperbolic", clip_c=2.0, thresholds=THRESHOLDS)
    return HyperbolicSpeakerRecognition.from_pretrained(path)


@pytest.fixture(scope="module")
def stock(folder, tmp_path_factory):
    return SpeakerRecognition.from_hparams(
        str(folder), savedir=tmp_path_factory.mktemp("stock")
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips")
    return [
        write(path / f"{seed}.wav", voice(seed, 1 + seed / 4), RATE)
        for seed in range(4)
    ]


def cosine(a, b):
    a, b = np.float64(a), np.float64(b)
    return a @ b / np.sqrt((a @ a) * (b @ b))


def distance(a, b, c=2.0):
    """In the Poincare ball, after the published clip of the norm."""
    a, b = np.float64(a), np.float64(b)
    a, b = (
        x * min(1, (1 - 1e-5) * c**-0.5 / np.linalg.norm(x)) for x in (a, b)
    )
    away = (a - b) @ (a - b) / ((1 - a @ a) * (1 - b @ b))
    return np.arccosh(1 + 2 * away)


def same(found, expected, atol=1e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_same_embeddings_as_the_stock(model, stock, clips):
    for clip in clips:
        expected = stock.encode_batch(stock.load_audio(str(clip))[None])
        found = model.embed(clip)
        same(found.vector, expected[0, 0])
        same(found.radius, expected[0, 0].norm(), 1e-5)
        assert found.seconds == len(audio.load(clip)) / RATE
        same(model.load_audio(clip), stock.load_audio(str(clip)))
    batch = torch.from_numpy(np.stack([voice(1), voice(2)]))
    lengths = torch.tensor([1.0, 0.7])
    same(model.encode_batch(batch, lengths), stock.encode_batch(batch, lengths))


def test_same_verification_as_the_stock(model, stock, clips):
    one, other = (
        torch.from_numpy(np.stack([voice(i), voice(i + 1)])) for i in (0, 4)
    )
    lengths = torch.tensor([1.0, 0.7]), torch.tensor([0.6, 1.0])
    for arguments in ((one, other), (one, other, *lengths)):
        score, decision = model.verify_batch(*arguments, threshold=0.9)
        expected, expected_decision = stock.verify_batch(
            *arguments, threshold=0.9
        )
        same(score, expected)
        assert score.shape == expected.shape
        assert torch.equal(decision, expected_decision)
    score, decision = model.verify_files(clips[0], clips[1], threshold=0.9)
    expected, expected_decision = stock.verify_files(
        str(clips[0]), str(clips[1])
    )
    same(score, expected)
    assert score.shape == expected.shape
    assert decision.shape == expected_decision.shape
    assert decision.dtype is torch.bool


def test_the_threshold_is_that_of_the_model(model, clips):
    """Not the stock's constant."""
    a, b = (torch.from_numpy(voice(seed))[None] for seed in (0, 1))
    score = float(model.verify_batch(a, b)[0])
    for threshold in (score - 0.01, score + 0.01):
        assert bool(model.verify_batch(a, b, threshold=threshold)[1]) == (
            score > threshold
        )
    eer = model.threshold_at()
    assert bool(model.verify_batch(a, b)[1]) == (score > eer)
    score, decision = model.verify_files(clips[0], clips[1])
    assert bool(decision) == (float(score) > eer)


@pytest.fixture
def make_model(tmp_path):
    def of(**fields):
        make(tmp_path, **fields)
        return HyperbolicSpeakerRecognition.from_pretrained(tmp_path)

    return of


@pytest.mark.parametrize("eer", [-2.0, 2.0])
def test_decisions_by_the_models_threshold(make_model, clips, eer):
    """Of a model whose threshold all scores are above, or none."""
    model = make_model(thresholds=Thresholds(eer, {}))
    batch = torch.from_numpy(voice())[None]
    accepted = eer < 0
    assert bool(model.verify_files(clips[0], clips[1])[1]) is accepted
    assert bool(model.verify_batch(batch, batch)[1]) is accepted
    store = VoiceprintStore(model.fingerprint)
    store.add("Ann", model.enrol(clips[:1]))
    assert (model.identify(clips[1], store).name is not None) is accepted


def test_threshold_at(model):
    assert model.threshold_at() == 0.5
    assert model.threshold_at(0.01) == 0.7
    with pytest.raises(InputError, match=r"0.05, expected one of: 0.1, 0.01;"):
        model.threshold_at(0.05)


def test_thresholds_that_were_not_measured(make_model, clips):
    model = make_model()
    batch = torch.from_numpy(voice())[None]
    for call in (
        model.threshold_at,
        lambda: model.verify_files(clips[0], clips[1]),
        lambda: model.verify_batch(batch, batch),
    ):
        with pytest.raises(InputError, match="have not been measured"):
            call()


def test_stock_from_hparams(folder, model, clips, tmp_path):
    """The class loads a stock folder too, and is then the same model."""
    other = HyperbolicSpeakerRecognition.from_hparams(
        str(folder), savedir=tmp_path
    )
    same(other.embed(clips[0]).vector, model.embed(clips[0]).vector)
    with pytest.raises(InputError, match="have not been measured"):
        other.threshold_at()


def test_fingerprint(model, folder, hyperbolic, tmp_path):
    again = HyperbolicSpeakerRecognition.from_pretrained(folder)
    again.embed(voice())
    assert again.fingerprint == model.fingerprint
    make(tmp_path, seed=1)
    other = HyperbolicSpeakerRecognition.from_pretrained(tmp_path)
    assert other.fingerprint != model.fingerprint


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_payloads_have_no_effect(folder, tmp_path):
    trace = tmp_path / "trace"
    hostile = tmp_path / "model"
    make(hostile, thresholds=THRESHOLDS)
    yaml = f"modules: !apply:os.mkdir\n    - {trace}\n"
    payload = pickle.dumps(Payload(trace))
    (hostile / "hyperparams.yaml").write_text(yaml)
    (hostile / "custom.py").write_text(f"open({str(trace)!r}, 'w')\n")
    for name in ("embedding_model.ckpt", "model.pt", "pytorch_model.bin"):
        (hostile / name).write_bytes(payload)
    # They are real payloads.
    load_hyperpyyaml(yaml)
    trace.rmdir()
    pickle.loads(payload).close()
    trace.unlink()

    model = HyperbolicSpeakerRecognition.from_pretrained(hostile)
    model.embed(voice())
    assert not trace.exists()


def test_pickle_under_the_name_of_the_weights(folder, tmp_path):
    trace = tmp_path / "trace"
    make(tmp_path)
    payload = pickle.dumps(Payload(trace))
    (tmp_path / "model.safetensors").write_bytes(payload)
    with pytest.raises(InputError, match="model.safetensors"):
        HyperbolicSpeakerRecognition.from_pretrained(tmp_path)
    assert not trace.exists()


def test_no_such_model(tmp_path, clips):
    load = HyperbolicSpeakerRecognition.from_pretrained
    with pytest.raises(InputError, match="is a file"):
        load(clips[0])
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load(tmp_path)
    with pytest.raises(InputError, match="is no folder") as error:
        load(tmp_path / "none")
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_no_cuda(folder):
    with pytest.raises(InputError, match="finds no CUDA"):
        HyperbolicSpeakerRecognition.from_pretrained(
            folder, run_opts={"device": "cuda"}
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")
def test_cuda(folder, model, clips):
    on_cuda = HyperbolicSpeakerRecognition.from_pretrained(
        folder, run_opts={"device": "cuda"}
    )
    assert on_cuda.fingerprint == model.fingerprint
    vector = on_cuda.embed(clips[0]).vector
    same(vector, model.embed(clips[0]).vector, 1e-4)
    batch = torch.from_numpy(voice())[None]
    score, decision = on_cuda.verify_batch(batch, batch)
    same(score.cpu(), [[1.0]], 1e-4)
    assert decision.all()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_any_format(model, tmp_path, extension):
    path = write(tmp_path / f"a{extension}", voice(seconds=2), RATE)
    found = model.embed(path)
    same(found.vector, model.embed(audio.load(path)).vector)
    if extension in (".wav", ".flac"):  # 16 bits
        same(found.vector, model.embed(voice(seconds=2)).vector, 0.05)


def test_any_rate_and_channels(model, tmp_path):
    rate = 44100
    left, right = voice(0, 2, rate), voice(1, 2, rate)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([left, right], 1), rate, subtype="FLOAT")
    mono = torchaudio.functional.resample(
        torch.from_numpy((left + right) / 2), rate, RATE
    )
    expected = model.embed(mono).vector
    same(model.embed(path).vector, expected, 1e-4)
    both = np.stack([left, right])
    same(model.embed(both, rate).vector, expected, 1e-4)
    same(model.embed(torch.from_numpy(both), rate).vector, expected, 1e-4)


@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4", "i2", ">i2"])
def test_any_array(model, dtype):
    scaled = np.round(voice() * 2**15).clip(-(2**15), 2**15 - 1)
    if dtype[-2] == "i":
        array = scaled.astype(dtype)
        expected = model.embed((scaled / 2**15).astype(np.float32)).vector
    else:
        array = voice().astype(dtype)
        expected = model.embed(array.astype(np.float32)).vector
    same(model.embed(array).vector, expected)
    same(model.embed(array[::-1][::-1]).vector, expected)


def test_tensors(model):
    expected = model.embed(voice()).vector
    tensor = torch.from_numpy(voice()).requires_grad_()
    same(model.embed(tensor).vector, expected)
    same(model.embed(tensor.double()).vector, expected)
    half = tensor.bfloat16()
    same(model.embed(half).vector, model.embed(half.float()).vector)


@pytest.mark.parametrize("samples", [1, 100, 1600, 1601])
def test_short_audio_is_repeated(model, samples):
    array = voice()[:samples]
    repeats = -(-max(samples, 1600) // samples)
    whole = np.tile(array, repeats)[: max(samples, 1600)]
    expected = model.encode_batch(torch.from_numpy(whole))[0, 0]
    found = model.embed(array)
    same(found.vector, expected)
    assert found.seconds == samples / RATE


def by_windows(model, waveform, bounds):
    vectors = np.stack(
        [
            model.encode_batch(torch.as_tensor(waveform[a:b]))[0, 0].numpy()
            for a, b in bounds
        ]
    )
    norms = np.linalg.norm(vectors, axis=1)
    return (vectors / norms[:, None]).mean(0) * norms.mean()


@pytest.fixture(scope="module")
def long_waveform():
    return np.concatenate([voice(seed, 10) for seed in range(10)])[: 95 * RATE]


@pytest.mark.parametrize(
    "seconds, bounds",
    [
        (60, [(0, 60)]),
        (61, [(0, 30), (30, 61)]),
        (89, [(0, 30), (30, 89)]),
        (90, [(0, 30), (30, 60), (60, 90)]),
        (95, [(0, 30), (30, 60), (60, 95)]),
    ],
)
def test_windows(model, long_waveform, tmp_path, seconds, bounds):
    waveform = long_waveform[: seconds * RATE]
    bounds = [(a * RATE, b * RATE) for a, b in bounds]
    expected = by_windows(model, waveform, bounds)
    found = model.embed(waveform)
    same(found.vector, expected)
    same(found.radius, np.linalg.norm(expected), 1e-5)
    assert found.seconds == seconds
    path = tmp_path / "a.wav"
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    same(model.embed(path).vector, expected)


@pytest.mark.parametrize("extension", [*EXTENSIONS, ".mp3"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_windows_of_any_format(model, tmp_path, extension, rate):
    samples = [voice(i, 10, rate) for i in range(7)]
    path = tmp_path / f"a{extension}"
    if extension == ".m4a":
        write(path, np.concatenate(samples), rate)
    else:
        with soundfile.SoundFile(path, "w", rate, 1) as file:
            # libsndfile writes no ogg of one large block.
            for block in samples:
                file.write(block)
    whole = audio.load(path)
    found = model.embed(path)
    bounds = [(0, 30 * RATE), (30 * RATE, len(whole))]
    # At the edges of a window resampling has no neighbours.
    same(found.vector, by_windows(model, whole, bounds), 1e-3)
    same(found.seconds, len(whole) / RATE, 1e-3)


def test_silent_windows_are_left_out(model, long_waveform):
    waveform = long_waveform.copy()
    waveform[30 * RATE : 60 * RATE] = 1e-5
    bounds = [(0, 30 * RATE), (60 * RATE, 95 * RATE)]
    found = model.embed(waveform)
    same(found.vector, by_windows(model, waveform, bounds))
    assert found.seconds == 95


LONG = """
import resource, sys, torch
from speechbrain_hyperbolic.inference import HyperbolicSpeakerRecognition

class Mean(torch.nn.Module):
    def forward(self, waveforms, lengths=None):
        return waveforms.abs().mean(1).reshape(-1, 1, 1).expand(-1, 1, 4)

class Same(torch.nn.Module):
    def forward(self, values, lengths=None):
        return values

from speechbrain.dataio.preprocess import AudioNormalizer
modules = {"compute_features": Mean(), "mean_var_norm": Same()}
modules |= {"embedding_model": Same(), "mean_var_norm_emb": Same()}
model = HyperbolicSpeakerRecognition(
    modules=modules, hparams={"audio_normalizer": AudioNormalizer(8000)}
)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

model.embed(sys.argv[1])
before = peak()
print(model.embed(sys.argv[2]).seconds, (peak() - before) / 1024)
"""


def test_three_hours_fit_in_memory(tmp_path):
    """All of it as floats would take 346 MB."""
    pytest.importorskip("resource")
    block = (tone(60, 8000) * 2**15).astype(np.int16)
    paths = [tmp_path / "minutes.flac", tmp_path / "hours.flac"]
    for path, minutes in zip(paths, (2, 180), strict=True):
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write(block)
    done = subprocess.run(
        [sys.executable, "-c", LONG, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds == 3 * 3600
    assert megabytes < 40


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad")
    (path / "folder.wav").mkdir()
    (path / "text.wav").write_text("not audio\n" * 100)
    (path / "text.m4a").write_text("not audio\n" * 100)
    (path / "empty.wav").write_bytes(b"")
    soundfile.write(path / "none.wav", np.zeros(0), RATE)
    soundfile.write(path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(path / "hour.flac", np.zeros(3600 * 8000), 8000)
    for name, seconds in (("nan.wav", 1), ("long_nan.wav", 70)):
        samples = voice(seconds=seconds)
        samples[-7] = np.nan
        soundfile.write(path / name, samples, RATE, subtype="FLOAT")
    for name, seconds in (("cut.flac", 2), ("long_cut.flac", 70)):
        write(path / name, voice(seconds=seconds), RATE)
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[: len(whole) * 9 // 10])
    write(path / "long_cut.wav", voice(seconds=70), RATE)
    whole = (path / "long_cut.wav").read_bytes()
    (path / "long_cut.wav").write_bytes(whole[:-50000])
    return path


BAD_FILES = {
    "missing.wav": "is missing",
    "folder.wav": "is a folder, expected an audio file",
    "text.wav": "can't be read as audio",
    "text.m4a": "can't be read as audio",
    "empty.wav": "can't be read as audio",
    "none.wav": "no samples",
    "silent.wav": "is silent",
    "hour.flac": "is silent",
    "nan.wav": "NaN or infinite",
    "long_nan.wav": "NaN or infinite",
    "cut.flac": "truncated|can't be read",
    "long_cut.flac": "truncated|can't be read",
    "long_cut.wav": "truncated",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(model, bad_files, clips, name):
    path = bad_files / name
    for call in (
        lambda: model.embed(path),
        lambda: model.embed_files([clips[0], path]),
        lambda: model.verify_files(clips[0], path),
        lambda: model.enrol([clips[0], path]),
    ):
        with pytest.raises(InputError, match=BAD_FILES[name]) as error:
            call()
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


BAD_AUDIO = {
    "nothing": (None, "of type NoneType"),
    "list": ([0.1, 0.2], "of type list"),
    "integers": (np.ones(RATE, np.int32), "of int32"),
    "truth": (np.ones(RATE, bool), "of bool"),
    "complex": (np.ones(RATE, complex), "of complex128"),
    "text": (np.array(["a"]), "of <U1"),
    "tensor of integers": (torch.ones(RATE, dtype=torch.long), "of int64"),
    "scalar": (np.array(0.1), "shape"),
    "three dimensions": (np.ones((1, 1, RATE)), "shape"),
    "time first": (np.ones((RATE, 2)), "shape"),
    "no samples": (np.zeros(0), "no samples"),
    "no channels": (np.zeros((0, RATE)), "no samples"),
    "NaN": (np.full(RATE, np.nan), "NaN or infinite"),
    "overflow": (np.full(RATE, 1e300), "NaN or infinite"),
    "unscaled": (voice() * 2**15, "divide"),
    "silence": (np.zeros(RATE), "is silent"),
    "long silence": (np.zeros(100 * RATE), "is silent"),
}


@pytest.mark.parametrize("case", BAD_AUDIO)
def test_bad_arrays(model, case):
    array, message = BAD_AUDIO[case]
    with pytest.raises(InputError, match=message) as error:
        model.embed(array)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [0, -1, 16000.0, "16000", True, 10**9])
def test_bad_sample_rates(model, rate):
    with pytest.raises(InputError, match="sample_rate is"):
        model.embed(voice(), rate)


@pytest.mark.parametrize(
    "wavs, lengths, message",
    [
        (torch.zeros(2, RATE), None, "waveform 0 is silent"),
        (torch.full((1, RATE), float("nan")), None, "waveform 0 holds NaN"),
        (torch.zeros(1, 2, RATE), None, "shape"),
        (torch.zeros(0, RATE), None, "shape"),
        (torch.ones(2, RATE), torch.ones(3), "lengths of wavs2"),
        # The speech is beyond the length.
        (torch.arange(RATE)[None] / RATE > 0.5, torch.ones(1) / 2, "silent"),
    ],
)
def test_bad_batches(model, wavs, lengths, message):
    good = torch.from_numpy(voice())[None]
    with pytest.raises(InputError, match=message):
        model.verify_batch(good, wavs, None, lengths)


def test_score_is_the_models(model, hyperbolic):
    generator = np.random.default_rng(0)
    # The clip is at 0.71: some are beyond it.
    for scale in (0.05, 0.2, 5):
        a, b = generator.normal(size=(2, 8)) * scale
        same(model.score(a, b), cosine(a, b))
        same(hyperbolic.score(a, b), -distance(a, b), 1e-5)
    embeddings = [hyperbolic.embed(voice(seed)) for seed in (0, 1)]
    score = hyperbolic.score(*embeddings)
    same(score, -distance(*(e.vector for e in embeddings)), 1e-5)
    batches = [torch.from_numpy(voice(seed))[None] for seed in (0, 1)]
    same(hyperbolic.verify_batch(*batches)[0], [[score]], 1e-4)


@pytest.mark.parametrize(
    "a, b",
    [
        (np.ones(8), np.ones(7)),
        (np.ones((2, 8)), np.ones(8)),
        (np.ones(8), np.full(8, np.nan)),
        (np.ones(8), "text"),
        ([], np.ones(8)),
    ],
)
def test_bad_vectors(model, a, b):
    with pytest.raises(InputError, match="vector"):
        model.score(a, b)


def test_enrol(model, clips):
    vectors = [model.embed(clip).vector for clip in clips[:3]]
    expected = np.mean([v / np.linalg.norm(v) for v in vectors], 0)
    same(model.enrol(clips[:3]), expected)
    same(model.enrol([clips[0]]), vectors[0])
    mixed = model.enrol((voice(0, 1), voice(1, 1.25), clips[2]), RATE)
    same(mixed, expected, 0.01)
    assert mixed.dtype == np.float32
    for wrong in ([], clips[0], None):
        with pytest.raises(InputError, match="list"):
            model.enrol(wrong)
    with pytest.raises(InputError, match="enrolment is 'median'"):
        model.enrol(clips, how="median")


def test_the_midpoint_is_in_the_middle(hyperbolic, clips):
    a, b = (hyperbolic.embed(clip).vector for clip in clips[:2])
    middle = hyperbolic.enrol(clips[:2], how="midpoint")
    half = distance(a, b) / 2
    same(hyperbolic.score(a, middle), -half, 1e-3)
    same(hyperbolic.score(b, middle), -half, 1e-3)


@pytest.mark.parametrize("which", ["model", "hyperbolic"])
def test_identify(request, clips, which):
    model = request.getfixturevalue(which)
    naive = cosine if which == "model" else lambda a, b: -distance(a, b)
    store = VoiceprintStore(model.fingerprint)
    for seed in range(7):
        store.add(f"speaker {seed}", model.embed(voice(seed, 2)).vector)
    probe = voice(3, 1)
    vector = model.embed(probe).vector
    expected = sorted(
        (
            (naive(v, vector), n)
            for v, n in zip(store.vectors, store.names, strict=True)
        ),
        reverse=True,
    )
    best = expected[0][0]
    for threshold, name in ((best - 0.01, expected[0][1]), (best + 0.01, None)):
        found = model.identify(probe, store, threshold, top=3)
        assert found.name == name
        assert found.threshold == threshold
        assert [n for n, _ in found.ranking] == [n for _, n in expected[:3]]
        same([s for _, s in found.ranking], [s for s, _ in expected[:3]], 1e-5)
        same(found.score, best, 1e-5)
    assert len(model.identify(probe, store, top=99).ranking) == 7


def test_identify_refuses(model):
    with pytest.raises(InputError, match="is empty"):
        model.identify(voice(), VoiceprintStore(model.fingerprint))
    store = VoiceprintStore("other")
    store.add("Ann", np.ones(8))
    with pytest.raises(InputError, match="another model"):
        model.identify(voice(), store)


def test_embed_files(model, clips, tmp_path):
    long = write(tmp_path / "long.wav", voice(9, 65), RATE)
    paths = [clips[2], long, clips[0], str(clips[3]), clips[2]]
    found = model.embed_files(paths)
    assert len(found) == len(paths)
    for path, embedding in zip(paths, found, strict=True):
        expected = model.embed(path)
        same(embedding.vector, expected.vector)
        assert embedding.vector.dtype == np.float32
        same(embedding.radius, expected.radius, 1e-5)
        same(embedding.seconds, expected.seconds)
    assert model.embed_files([]) == []
    with pytest.raises(InputError, match="expected a list"):
        model.embed_files(str(clips[0]))


def test_embed_files_from_the_cache(folder, clips, tmp_path, monkeypatch):
    model = HyperbolicSpeakerRecognition.from_pretrained(folder)
    long = write(tmp_path / "long.wav", voice(9, 65), RATE)
    paths = [clips[0], long, clips[1]]
    cache = tmp_path / "cache"
    first = model.embed_files(paths, cache)

    def encode(*_):
        raise AssertionError("it was to come from the cache")

    monkeypatch.setattr(Encoder, "__call__", encode)
    again = model.embed_files(paths, cache)
    for one, other in zip(first, again, strict=True):
        assert one.vector.tolist() == other.vector.tolist()
        assert one[1:] == other[1:]
    write(long, voice(8, 66), RATE)
    with pytest.raises(AssertionError):
        model.embed_files(paths, cache)


def test_real_speech(model, speechocean):
    """Runs; random weights say nothing of speakers."""
    paths = sorted(speechocean.glob("audio/*/*"))[:20]
    found = model.embed_files(paths)
    assert all(1 < embedding.seconds < 60 for embedding in found)
    same(found[3].vector, model.embed(paths[3]).vector)
