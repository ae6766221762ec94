"""What a GPU gives: correctness, time, memory, training, resumption.

> python -m benchmarks.gpu --out gpu

It takes at most 5 minutes on one GPU and needs no network. gpu.json and gpu.md
are written after each part. SPEECHBRAIN_CLONE=/path/to/speechbrain adds the
stock recipe. ``--tiny --device cpu`` tries everything in small.
"""

import argparse
import gc
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet import losses as stock

from benchmarks import commit, machine
from benchmarks.gpu_training import (
    HAM,
    observe,
    resume,
    training,
    wait,
    write_corpus,
)
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.evaluation.extraction import Encoder, extract
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet import margins
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.similarity import MAPS

DIM = 192
BUDGET = 285  # seconds
# Relative errors of the loss and of the gradients, against float64
TOLERANCES = {"fp32": (2e-5, 2e-3), "bf16": (2e-5, 8e-3), "fp16": (2e-5, 2e-3)}


class Report:
    """Tables, printed and kept in gpu.md and gpu.json."""

    def __init__(self, options):
        self.folder = pathlib.Path(options.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        self.head = f"Commit {commit()}; {machine(options.device)}"
        self.tables = {}

    def left(self):
        return BUDGET - (time.monotonic() - self.began)

    def add(self, title, columns, rows):
        self.tables[title] = [dict(zip(columns, r, strict=True)) for r in rows]
        lines = ["", f"## {title}", "", f"| {' | '.join(columns)} |"]
        lines.append("|---" * len(columns) + "|")
        for row in rows:
            cells = [f"{c:.4g}" if isinstance(c, float) else c for c in row]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        print("\n".join(lines), flush=True)
        path = self.folder / "gpu.md"
        text = path.read_text() if len(self.tables) > 1 else f"{self.head}\n"
        path.write_text(text + "\n".join(lines) + "\n")
        found = {"machine": self.head, "tables": self.tables}
        (self.folder / "gpu.json").write_text(json.dumps(found, indent=1))


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


def gradients(loss, x, head, scale=1.0):
    found = torch.autograd.grad(loss * scale, [x, *head.parameters()])
    return [g.double().cpu() / scale for g in found]


def correctness(report, options):
    """Loss and gradients of each map, margin and precision."""
    classes, batch = (300, 16) if options.tiny else (2000, 96)
    kinds = {"fp32": None, "bf16": torch.bfloat16}
    if options.device == "cuda":
        kinds["fp16"] = torch.float16
    worst = {kind: [0, 0, 0.0, 0.0, ""] for kind in kinds}
    for map, name, margin, chunk_size in cases():
        torch.manual_seed(0)
        settings = {"embedding_scale": 0.1} if map != "clip" else {}
        head = HyperbolicClassifier(
            DIM, out_neurons=classes, map=map, init_std=0.05, **settings
        )
        labels = torch.randint(classes, (batch, 1))
        near = head.weight.detach()[labels[:, 0]]
        length = 1 if map == "inner_product" else 8
        x = length * (near + 0.12 * torch.randn(batch, DIM)).unsqueeze(1)
        for kind, dtype in kinds.items():
            exact = x.to(dtype or x.dtype).double().requires_grad_()
            head.double().cpu()
            hot = torch.nn.functional.one_hot(labels[:, 0], classes)
            logits = margin(head(exact).squeeze(1), hot)
            truth = torch.nn.functional.cross_entropy(logits, labels[:, 0])
            expected = gradients(truth, exact, head)
            head.float().to(options.device)
            given = exact.detach().to(options.device, dtype or x.dtype)
            given.requires_grad_()
            with torch.autocast(options.device, dtype, dtype is not None):
                loss = head(
                    given,
                    labels.to(options.device),
                    MarginSoftmax(margin, chunk_size),
                )
                # Inside autocast, where others' gradients would be wrong
                scale = 1024.0 if kind == "fp16" else 1.0
                found = gradients(loss, given, head, scale)
            errors = [abs(loss.item() / truth.item() - 1)]
            errors.append(
                max(
                    float((g - e).norm() / e.norm())
                    for g, e in zip(found, expected, strict=True)
                )
            )
            row = worst[kind]
            good = all(
                error <= limit
                for error, limit in zip(errors, TOLERANCES[kind], strict=True)
            )
            row[0], row[1] = row[0] + good, row[1] + 1
            row[2] = max(row[2], errors[0])
            if errors[1] >= row[3]:
                row[3:] = errors[1], f"{map}, {name}, chunk_size {chunk_size}"
    rows = [[k, f"{g} of {n}", *rest] for k, (g, n, *rest) in worst.items()]
    columns = ["precision", "within tolerance", "largest error of a loss"]
    columns += ["of a gradient", "that of"]
    report.add("Head and cost against float64, relative", columns, rows)
    if any(good < n for good, n, *_ in worst.values()):
        raise AssertionError("an error is beyond its tolerance")


# Head and cost


def systems(classes, device):
    ours = MarginSoftmax(margins.AdditiveMargin(0.2, 30.0))
    wrapped = stock.LogSoftmaxWrapper(stock.AngularMargin(0.2, 30))
    aam = stock.LogSoftmaxWrapper(stock.AdditiveAngularMargin(0.2, 30))

    def ham(cost=None):
        head = HyperbolicClassifier(DIM, device, out_neurons=classes)
        return head, cost

    yield "ours", lambda: ham(ours)
    yield "our head, stock wrapper", lambda: ham(wrapped)
    for size in (16384, 65536):
        if size < classes:
            cost = MarginSoftmax(margins.AdditiveMargin(0.2, 30.0), size)
            yield f"ours, chunk_size {size}", lambda cost=cost: ham(cost)
    make = lambda: Classifier(DIM, out_neurons=classes).to(device)  # noqa: E731
    yield "stock AAM", lambda: (make(), aam)
    linear = torch.nn.Linear(DIM, classes, bias=False, device=device)

    def entropy(outputs, labels):
        outputs, labels = outputs.squeeze(1), labels.squeeze(1)
        return torch.nn.functional.cross_entropy(outputs, labels)

    yield "linear + cross-entropy", lambda: (linear, entropy)


def head_and_cost(report, options):
    """A step of one system after the other, in another order each round."""
    device, batch = options.device, 16 if options.tiny else 512
    rows = []
    for classes in (300, 20000) if options.tiny else (5994, 10**5, 10**6):
        steps, found = {}, {}
        x = torch.randn(batch, 1, DIM, device=device, requires_grad=True)
        labels = torch.randint(classes, (batch, 1), device=device)

        def step(head, cost, x=x, labels=labels):
            x.grad = None
            head.zero_grad()
            if getattr(cost, "chunk_size", None):
                head(x, labels, cost).backward()
            else:
                cost(head(x), labels).backward()

        for name, make in systems(classes, device):
            try:
                parts = make()
                step(*parts)
                wait(device)
                memory = 0
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                    memory = -torch.cuda.memory_allocated()
                    step(*parts)
                    memory += torch.cuda.max_memory_allocated()
                count, _, places = observe(device, lambda p=parts: step(*p))
                found[name] = [memory / 2**20, count, sum(places.values())]
                steps[name] = parts
            except torch.OutOfMemoryError:
                rows.append(
                    [f"{batch} x {classes}", name, "no memory", *"----"]
                )
        seconds = {name: [] for name in steps}
        order, until = list(steps), time.monotonic() + 8
        for number in range(3 if options.tiny else 40):
            random.Random(number).shuffle(order)
            for name in order:
                wait(device)
                began = time.perf_counter()
                step(*steps[name])
                wait(device)
                seconds[name].append(time.perf_counter() - began)
            if time.monotonic() > until:
                break
        for name, times in seconds.items():
            pairs = zip(times, seconds.get("stock AAM", times), strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            median = 1e3 * statistics.median(times)
            rows.append([f"{batch} x {classes}", name, median, ratio])
            rows[-1] += found[name]
        del steps, x, labels, parts
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    columns = ["batch x classes", "system", "ms", "/ stock AAM"]
    columns += ["MiB beyond the weights", "kernels", "waits"]
    report.add("Head and cost, forward and backward", columns, rows)


# Scoring


def scoring(report, options):
    """Embeddings a second, and the device's against the CPU's."""
    folder, tiny = options.work / "scoring", options.tiny
    write_corpus(folder, 4, 4, (1, 2)) if tiny else write_corpus(
        folder, 40, 20, (4, 12)
    )
    paths = {p.stem + p.parent.name: p for p in folder.glob("corpus/*/*")}
    overrides = {"data_folder": "", "channels": 16 if tiny else 1024}
    hparams = load_hparams(HAM, overrides)
    names = "compute_features", "input_norm", "embedding_model"
    modules = [hparams[name] for name in names]
    few, rows, views = dict(list(paths.items())[:8]), [], {}
    for device in dict.fromkeys([options.device, "cpu"]):
        encoder = Encoder(*modules, device=device)
        views[device] = extract(encoder, few).views
        if device != options.device:
            break
        for seconds in (60, None):
            for crops in (0, 5):
                began = time.perf_counter()
                extract(encoder, paths, n_crops=crops, batch_seconds=seconds)
                took = time.perf_counter() - began
                rows.append([seconds or "default", crops, len(paths) / took])
    error = (views[options.device] - views["cpu"]).norm() / views["cpu"].norm()
    rows.append(["difference from the CPU, relative", "", float(error)])
    report.add("Scoring", ["batch_seconds", "crops", "utterances/s"], rows)


PARTS = {
    "correctness": (correctness, 20),
    "head": (head_and_cost, 40),
    "training": (training, 60),
    "resume": (resume, 40),
    "scoring": (scoring, 15),
}


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", default="gpu", help="folder of the results")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--batch_size", type=int, help="of trainings")
    workers = min(14, os.cpu_count() or 1)
    parser.add_argument("--num_workers", type=int, default=workers)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but PyTorch finds no GPU")
    report, failed = Report(options), []
    with tempfile.TemporaryDirectory() as work:
        options.work = pathlib.Path(work)
        for name in options.parts:
            part, least = PARTS[name]
            if report.left() < least and not options.tiny:
                report.add(f"{name}: left out, no time", [], [])
                continue
            try:
                part(report, options)
            except (AssertionError, RuntimeError) as error:
                failed.append(name)
                report.add(f"{name}: failed", ["error"], [[str(error)]])
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    with exit_on_error():
        main()
