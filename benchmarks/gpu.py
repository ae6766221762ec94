"""What a GPU gives: correctness, time, memory, training, resumption.

> python -m benchmarks.gpu --out gpu.json

It takes at most 5 minutes on one GPU and needs no network. The tables are
printed, and written to the file after each part.
SPEECHBRAIN_CLONE=/path/to/speechbrain adds the stock recipe.
``--tiny --device cpu`` tries everything in small.
"""

import json
import os
import pathlib
import signal
import sys
import tempfile
import time

import torch

from benchmarks import (
    STOCK_RECIPE,
    commit,
    head,
    machine,
    make_parser,
    stock_clone,
    table,
)
from benchmarks.corpus import write_recordings, write_sounds
from benchmarks.trainings import (
    HPARAMS,
    SCRIPT,
    finish,
    measure,
    options_of,
    start,
)
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.evaluation.extraction import Encoder, extract
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet import margins
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.similarity import MAPS
from speechbrain_hyperbolic.training.checkpoints import average_epochs

BUDGET = 285  # seconds
HAM = HPARAMS / "ham_ecapa.yaml"
DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# Relative errors of the loss and of the gradients, against float64
TOLERANCES = {"fp32": (2e-5, 2e-3), "bf16": (2e-5, 8e-3), "fp16": (2e-5, 2e-3)}


class Report:
    """Tables, printed and kept in a file."""

    def __init__(self, options):
        self.path, self.tables = pathlib.Path(options.out), {}
        self.began = time.monotonic()
        self.head = f"Commit {commit()}; {machine(options.device)}"
        print(self.head)

    def left(self):
        return BUDGET - (time.monotonic() - self.began)

    def add(self, title, rows):
        self.tables[title] = rows
        print(f"\n## {title}\n\n{table(rows)}", flush=True)
        found = {"machine": self.head, "tables": self.tables}
        self.path.write_text(json.dumps(found, indent=1))


# Correctness


def cases():
    for map in MAPS:
        for name, margin in {
            "AM": margins.AdditiveMargin(0.2, 30.0),
            "AM, top 5": margins.AdditiveMargin(0.2, 30.0, 5, 0.1),
            "RAM": margins.RealAdditiveMargin(0.2, 30.0),
            "AAM": margins.AdditiveAngularMargin(0.2, 30.0),
        }.items():
            if map == "cosine" or name[:2] == "AM":
                for chunk_size in (None,) if margin.top_k else (None, 100):
                    yield map, name, margin, chunk_size


def gradients(loss, x, classifier, scale=1.0):
    found = torch.autograd.grad(loss * scale, [x, *classifier.parameters()])
    return [g.double().cpu() / scale for g in found]


def errors_of(classifier, margin, chunk_size, x, labels, kind, device):
    """Relative errors of the loss and, at most, of a gradient."""
    dtype = DTYPES[kind]
    exact = x.to(dtype).double().requires_grad_()
    classifier.double().cpu()
    hot = torch.nn.functional.one_hot(labels[:, 0], classifier.weight.shape[0])
    logits = margin(classifier(exact).squeeze(1), hot)
    truth = torch.nn.functional.cross_entropy(logits, labels[:, 0])
    expected = gradients(truth, exact, classifier)

    classifier.float().to(device)
    given = exact.detach().to(device, dtype).requires_grad_()
    with torch.autocast(device, dtype, kind != "fp32"):
        cost = MarginSoftmax(margin, chunk_size)
        loss = classifier(given, labels.to(device), cost)
        # Inside autocast, where others' gradients would be wrong
        scale = 1024.0 if kind == "fp16" else 1.0
        found = gradients(loss, given, classifier, scale)
    pairs = zip(found, expected, strict=True)
    worst = max(float((g - e).norm() / e.norm()) for g, e in pairs)
    return abs(loss.item() / truth.item() - 1), worst


def correctness(report, options):
    """Loss and gradients of each map, margin and precision."""
    classes, batch = (300, 16) if options.tiny else (2000, 96)
    kinds = [*TOLERANCES] if options.device == "cuda" else ["fp32", "bf16"]
    found = {kind: [] for kind in kinds}
    for map, name, margin, chunk_size in cases():
        torch.manual_seed(0)
        settings = {"embedding_scale": 0.1} if map != "clip" else {}
        classifier = HyperbolicClassifier(
            head.DIM, out_neurons=classes, map=map, init_std=0.05, **settings
        )
        labels = torch.randint(classes, (batch, 1))
        near = classifier.weight.detach()[labels[:, 0]]
        length = 1 if map == "inner_product" else 8
        x = length * (near + 0.12 * torch.randn(batch, head.DIM)).unsqueeze(1)
        for kind, errors in found.items():
            given = classifier, margin, chunk_size, x, labels
            text = f"{map}, {name}, chunk_size {chunk_size}"
            errors.append((*errors_of(*given, kind, options.device), text))
    rows, good = [], True
    for kind, errors in found.items():
        of_loss, of_gradient = TOLERANCES[kind]
        within = [a <= of_loss and b <= of_gradient for a, b, _ in errors]
        good = good and all(within)
        row = {"precision": kind}
        row["within tolerance"] = f"{sum(within)} of {len(within)}"
        row["largest error of a loss"] = max(a for a, *_ in errors)
        worst = max(errors, key=lambda error: error[1])
        rows.append(row | {"of a gradient": worst[1], "that of": worst[2]})
    report.add("Head and cost against float64, relative", rows)
    if not good:
        raise AssertionError("an error is beyond its tolerance")


def head_and_cost(report, options):
    """A table for each number of classes."""
    batch, rounds, sizes = 512, 40, (5994, 10**5, 10**6)
    if options.tiny:
        batch, rounds, sizes = 16, 3, (300, 20000)
    for classes in sizes:
        # A step of a million classes takes long enough for fewer rounds.
        rounds = min(rounds, 10) if classes == 10**6 else rounds
        rows = head.compare(batch, classes, rounds, options.device)
        report.add(f"Head and cost, {batch} x {classes}", rows)


# Training


def sounds_and_sizes(folder, options):
    """What our scripts are told of them, and the stock's own file."""
    channels, sounds = 16 if options.tiny else 1024, folder / "sounds"
    write_sounds(sounds, 8)
    ours = {
        "device": options.device,
        "num_workers": options.num_workers,
        "channels": channels,
        "noise_source": sounds,
        "rir_source": sounds / "rir",
        "data_folder_noise": folder,
    }
    sizes = [*[channels] * 4, 3 * channels]
    stock = {
        "device": options.device,
        "embedding_model": f"{{channels: {sizes}}}",
        "noise_annotation": sounds / "noise.csv",
        "rir_annotation": sounds / "rir.csv",
        "prepare_noise_data": "!name:builtins.dict",
        "prepare_rir_data": "!name:builtins.dict",
    }
    return ours, stock


def training(report, options):
    """Steps of the real script, in several precisions, and of the stock's."""
    speakers, batch, steps = (12, 4, 3) if options.tiny else (5994, 256, 40)
    folder = options.work / "training"
    recordings = write_recordings(folder / "noise", 200, (2.1, 4))
    tables = options_of(folder, recordings, batch, steps, speakers)
    of_ours, of_stock = sounds_and_sizes(folder, options)
    ours = SCRIPT, HAM, tables | of_ours
    bf16 = {"precision": "bf16"}
    runs = {"bf16": (ours, bf16)}
    if clone := stock_clone():
        script = clone / STOCK_RECIPE / "train_speaker_embeddings.py"
        file = script.parent / "hparams" / "train_ecapa_tdnn.yaml"
        its = script, file, tables | of_stock
        runs["stock script and file, bf16"] = its, bf16
    if not options.tiny:
        runs |= {
            "bf16, compiled encoder": (ours, bf16 | {"compile": None}),
            "fp16": (ours, {"precision": "fp16"}),
            "fp32": (ours, {}),
        }
    rows, parts = [], []
    for name, ((script, hparams, given), more) in runs.items():
        least = 60 if "compile" in more else 45
        if report.left() < least and not options.tiny:
            print(f"{name}: left out, no time")
            continue
        output = folder / name.replace(" ", "")
        try:
            found = measure(script, hparams, output, given | more, steps)
        except RuntimeError as error:
            print(f"{name} has failed: {error}", flush=True)
            continue
        waits = found["places"]
        row = {"run": name, "steps/s": 1 / found["step"]}
        row["utterances/s"] = batch / found["step"]
        row["% waiting for data"] = 100 * found["wait"] / found["step"]
        row["% GPU busy"] = 100 * found["busy"]
        row |= {"kernels": found["kernels"], "waits": sum(waits.values())}
        row["of ours"] = sum(n for p, n in waits.items() if "hyperbolic" in p)
        rows.append(row | {"GiB": found["GiB"]})
        for part, seconds in found["parts"].items():
            parts.append({"run": name, "part": part, "ms": 1e3 * seconds})
    if not rows:
        raise RuntimeError("no training ended")
    title = f"Training, ECAPA, batch of {batch} utterances and as many copies"
    report.add(title, rows)
    report.add("Where a step goes", parts)


def resume(report, options):
    """Final weights of a run, again, killed and resumed; also deterministic."""
    folder = options.work / "resume"
    recordings = write_recordings(folder / "noise", 40, (1.0, 1.6))
    given = options_of(folder, recordings, batch_size=8, steps=0, speakers=6)
    given |= sounds_and_sizes(folder, options)[0]
    given |= {"channels": 64, "number_of_epochs": 2, "sentence_len": 0.8}
    given |= {"num_workers": 1}
    given |= {"ckpt_interval_minutes": 0, "ckpt_interval_steps": 2}
    rows = []
    for kind in ("as given", "deterministic"):
        outputs = [folder / f"{kind}-{n}" for n in ("a", "b", "killed")]
        its = given | {"deterministic": kind == "deterministic"}
        running = [start(SCRIPT, HAM, output, its) for output in outputs]
        saves, killed = outputs[2] / "save", running[2]
        while not list(saves.glob("CKPT*")) and killed.poll() is None:
            time.sleep(0.02)
        was_killed = killed.poll() is None
        if was_killed:
            os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        running[2] = start(SCRIPT, HAM, outputs[2], its)
        weights = []
        for output, process in zip(outputs, running, strict=True):
            finish(process, output)
            state = average_epochs(output / "save", 1, "embedding_model")
            weights.append(torch.cat([v.flatten() for v in state.values()]))
        whole, again, resumed = weights
        for what, other in (("again", again), ("killed, resumed", resumed)):
            row = {"setting": kind, "run": what, "was killed": was_killed}
            row["equal bit by bit"] = torch.equal(whole, other)
            difference = (whole - other).abs().max()
            rows.append(row | {"largest difference": float(difference)})
    report.add("Resumption: weights against a whole run's", rows)


# Scoring


def scoring(report, options):
    """Embeddings a second, and the device's against the CPU's."""
    count, seconds = (16, (1, 2)) if options.tiny else (800, (4, 12))
    written = write_recordings(options.work / "scoring", count, seconds)
    paths = {path.stem: path for path in written}
    channels = 16 if options.tiny else 1024
    hparams = load_hparams(HAM, {"data_folder": "", "channels": channels})
    names = "compute_features", "input_norm", "embedding_model"
    modules = [hparams[name] for name in names]
    few, rows = dict(list(paths.items())[:8]), []
    encoder = Encoder(*modules, device=options.device)
    found = extract(encoder, few).views
    for batch_seconds in (60, None):
        for crops in (0, 5):
            began = time.perf_counter()
            extract(encoder, paths, n_crops=crops, batch_seconds=batch_seconds)
            speed = len(paths) / (time.perf_counter() - began)
            row = {"batch_seconds": batch_seconds or "default", "crops": crops}
            rows.append(row | {"utterances/s": speed})
    report.add("Scoring", rows)
    expected = extract(Encoder(*modules, device="cpu"), few).views
    error = float((found - expected).norm() / expected.norm())
    report.add("Embeddings against the CPU's", [{"relative error": error}])


PARTS = {
    "correctness": (correctness, 20),
    "head": (head_and_cost, 40),
    "training": (training, 60),
    "resume": (resume, 40),
    "scoring": (scoring, 15),
}


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--out", default="gpu.json", help="of the results")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    workers = min(14, os.cpu_count() or 1)
    parser.add_argument("--num_workers", type=int, default=workers)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but PyTorch finds no GPU")
    report, failed = Report(options), False
    with tempfile.TemporaryDirectory() as work:
        options.work = pathlib.Path(work)
        for name in options.parts:
            part, least = PARTS[name]
            if report.left() < least and not options.tiny:
                print(f"{name}: left out, no time")
                continue
            try:
                part(report, options)
            except (AssertionError, RuntimeError) as error:
                failed = True
                report.add(f"{name} has failed", [{"error": str(error)}])
    sys.exit(failed)


if __name__ == "__main__":
    with exit_on_error():
        main()
