"""The hparams files: what they hold, and how they are loaded."""

import difflib
import pathlib
import re

import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import (
    copy_recipes,
    find_hparams,
    load_hparams,
    read_nodes,
    read_settings,
    save_resolved,
    tag_of,
)
from tests.conftest import ROOT
from tests.lobes.wavlm import make_wavlm

HPARAMS = ROOT / "hparams"
BASE = HPARAMS / "ham_ecapa.yaml"
VERIFICATION = HPARAMS / "verification.yaml"
SPEAKERS = 8
SMALL = {"channels": 16, "out_n_neurons": SPEAKERS}
# What each file may state otherwise than ham_ecapa.yaml, besides its
# output_folder: a value, or the class that the entry (or its loss_fn) has.
DIFFERENCES = {
    "h_ecapa": {"clip_c": 5.0, "margin": 0},
    "am_ecapa": {"map": "cosine"},
    "aam_ecapa": {"map": "cosine", "compute_cost": "AdditiveAngularMargin"},
    "ram_ecapa": {"map": "cosine", "compute_cost": "RealAdditiveMargin"},
    "softmax_ecapa": {"map": "inner_product", "margin": 0, "scale": 1},
    "ham_exact_ecapa": {"map": "exponential"},
    "eh_am_ecapa": {
        "classifier": "JointClassifier",
        "compute_cost": "JointLoss",
        "loss_weights": [0.7, 0.3],
    },
    "best": {"map": "smooth_cap", "margin": 0.4},
    "finetune": {
        "number_of_epochs": 10,
        "batch_size": 32,
        "lr_decay": 0.7,
        "pretrain_path": "results/ham_ecapa/1986/model",
        "pretrain_modules": ["embedding_model"],
        "encoder_lr": "<lr>",
        "freeze": 0,
        "opt_class": "fine_tuning_optimizer",
    },
    "ham_wavlm": {
        "number_of_epochs": 20,
        "batch_size": 64,
        "encoder_lr": 2e-5,
        "freeze": 10,
        "lr_decay": 0.9,
        "sentence_len": 3.0,
        "wavlm": "microsoft/wavlm-base-plus",
        "channels": 512,
        "n_mels": None,
        "compute_features": "Identity",
        "input_norm": None,
        "mean_var_norm": "InputNormalization",
        "embedding_model": "WavLMEncoder",
        "opt_class": "fine_tuning_optimizer",
    },
    "cnceleb": {
        "lists_folder": "",
        "verification_file": "<lists_folder>/trials.lst",
        "enrollment_file": "<lists_folder>/enroll.map",
        "out_n_neurons": 2793,
    },
}
SYSTEMS = ["ham_ecapa", *DIFFERENCES]
# What the stock scripts read from an hparams file
TRAIN_KEYS = """
checkpointer compute_cost compute_features data_folder dataloader_options
epoch_counter error_stats lr_annealing modules opt_class output_folder
prepare_noise_data prepare_rir_data random_chunk sample_rate save_folder
sentence_len skip_prep split_ratio train_annotation train_logger
valid_annotation verification_file wav_augment
""".split()
VERIFY_KEYS = """
compute_features data_folder embedding_model enrol_data enrol_dataloader_opts
mean_var_norm n_train_snts output_folder pretrainer save_folder skip_prep
split_ratio test_data test_dataloader_opts train_data train_dataloader_opts
verification_file
""".split()


def path_of(system):
    return HPARAMS / f"{system}.yaml"


def overrides_for(system, output_folder, **overrides):
    own = {"data_folder": "x", "output_folder": str(output_folder)}
    if system == "cnceleb":
        own["lists_folder"] = "x"
    if system == "finetune":
        own["pretrain_path"] = None
    if system == "ham_wavlm":
        own["wavlm"] = str(make_wavlm(output_folder / "wavlm"))
    return {**own, **SMALL, **overrides}


def plain(node):
    """A YAML node with its tags, to compare."""
    tag = tag_of(node)
    if isinstance(node, dict):
        return tag, {key: plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return tag, [plain(value) for value in node]
    return tag, getattr(node, "value", node) if tag else node


# ------------------------------------------------------------ what they hold


def test_there_are_no_other_files():
    names = {path.stem for path in HPARAMS.glob("*.yaml")}
    assert names == {*SYSTEMS, "verification"}


@pytest.mark.parametrize("system", DIFFERENCES)
def test_a_file_differs_from_ham_ecapa_in_its_own_entries_only(system):
    base, nodes = read_nodes(BASE), read_nodes(path_of(system))
    folder = f"results/{system}/<seed>"
    assert plain(nodes.pop("output_folder")) == ("!ref", folder)
    del base["output_folder"]
    stated = DIFFERENCES[system]
    left_out = [key for key in stated if stated[key] is None]
    shared = [key for key in base if key not in left_out]
    assert [key for key in nodes if key in base] == shared
    for key, node in nodes.items():
        if key not in stated:
            assert plain(node) == plain(base[key]), key
        elif tag_of(node).startswith("!n"):  # !new or !name
            if isinstance(node, dict):
                node = node.get("loss_fn", node)
            assert tag_of(node).rpartition(".")[2] == stated[key]
        else:
            assert getattr(node, "value", node) == stated[key], key


def test_two_losses_differ_by_three_lines():
    """Also the comments: title, output folder, map."""
    texts = [
        path_of(name).read_text().splitlines()
        for name in ("am_ecapa", "ham_ecapa")
    ]
    lines = difflib.unified_diff(*texts, n=0, lineterm="")
    new = [x for x in lines if x.startswith("+") and not x.startswith("+++")]
    assert [x.split()[0] for x in new] == ["+#", "+output_folder:", "+map:"]


def test_defaults_are_the_published_ones(tmp_path):
    overrides = {"data_folder": "x", "output_folder": str(tmp_path)}
    hparams = load_hparams(BASE, overrides)
    published = {
        "clip_c": 3.0,
        "margin": 0.2,
        "scale": 30,
        "channels": 1024,
        "emb_dim": 192,
        "n_mels": 80,
        "number_of_epochs": 100,
        "batch_size": 256,
        "lr": 1e-3,
        "lr_decay": 0.97,
        "weight_decay": 2e-5,
        "epochs_to_average": 5,
        "out_n_neurons": 5994,
    }
    assert {key: hparams[key] for key in published} == published
    augment = hparams["wav_augment"]
    ranges = [[0, 15], [5, 15], [13, 20]]
    assert augment.snr_ranges[:3].tolist() == ranges
    assert augment.babble_speakers == [3, 8]
    assert int(hparams["sample_rate"] * hparams["sentence_len"]) == 32240
    annealing = hparams["lr_annealing"]
    assert annealing(1) == pytest.approx((1e-3, 0.97e-3))
    assert annealing(2) == pytest.approx((0.97e-3, 0.97**2 * 1e-3))
    weight = hparams["classifier"].weight
    assert weight.std().item() == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("path", sorted(HPARAMS.glob("*.yaml")))
def test_every_key_can_be_an_option(path):
    """None abbreviates an option of SpeechBrain's own command line."""
    for key in read_nodes(path):
        _, run_opts, overrides = sb.parse_arguments(["a.yaml", f"--{key}=7"])
        assert overrides.split() == [f"{key}:", "7"] or run_opts[key] == 7


# ------------------------------------------------------------ training steps


def forward(hparams, batch=4):
    """A training step as SpeechBrain's script takes it; the loss."""
    torch.manual_seed(0)
    modules = torch.nn.ModuleDict(hparams["modules"]).train()
    features = modules["compute_features"](torch.randn(batch, 8000))
    features = modules["mean_var_norm"](features, torch.ones(batch))
    outputs = modules["classifier"](modules["embedding_model"](features))
    labels = torch.arange(batch)[:, None]
    hparams["error_stats"]().append(
        ["a"] * batch, outputs, labels, torch.ones(batch)
    )
    return hparams["compute_cost"](outputs, labels, torch.ones(batch))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_as_the_stock_script_takes_it(system, tmp_path):
    """With plain HyperPyYAML; every parameter learns and is saved."""
    with open(path_of(system)) as file:
        hparams = load_hyperpyyaml(file, overrides_for(system, tmp_path))
    loss = forward(hparams)
    loss.backward()
    assert loss.isfinite()
    for module in hparams["modules"].values():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad.isfinite().all(), name
    saved = hparams["checkpointer"].recoverables
    for name in ("embedding_model", "classifier"):
        assert saved[name] is hparams["modules"][name]


@pytest.mark.parametrize(
    "options, found",
    [
        ("sub_centers: 3", lambda h: len(h["classifier"].weight) / SPEAKERS),
        ("map: smooth_cap\ncap: 3", lambda h: h["classifier"].similarity.cap),
        ("top_k: 3", lambda h: h["compute_cost"].loss_fn.top_k),
        ("chunk_size: 3", lambda h: h["compute_cost"].chunk_size),
        ("scale: 3", lambda h: h["compute_cost"].loss_fn.scale),
        ("init_std: 3", lambda h: h["classifier"].weight.std().round().item()),
        (
            "margin: !new:speechbrain_hyperbolic.MarginSchedule [0, 0.2, 0, 3]",
            lambda h: h["compute_cost"].loss_fn.margin.last_step,
        ),
        ("epochs_to_average: 3", lambda h: h["checkpointer"].keep_epochs),
        (
            "map: exponential\nlearn_curvature: True",
            lambda h: 1 + len([*h["classifier"].parameters()]),
        ),
    ],
)
def test_options_of_the_readme_reach_what_they_name(options, found, tmp_path):
    own = f"data_folder: x\noutput_folder: {tmp_path}\nchannels: 16\n"
    own += f"out_n_neurons: {SPEAKERS}\n"
    assert found(load_hparams(BASE, own + options)) == 3


def test_encoders_of_the_readme_replace_the_ecapa(tmp_path):
    readme = (ROOT / "recipes" / "VoxCeleb" / "README.md").read_text()
    block = r"```yaml\n(embedding_model: .*?)```"
    (resnet,) = re.findall(block, readme, re.S)
    xvector = resnet.replace("ResNet.ResNet", "Xvector.Xvector")
    xvector = xvector.replace("input_size", "in_channels")
    text = BASE.read_text()
    ecapa = re.search(r"embedding_model: !new.*?\n\n", text, re.S).group()
    for node in (resnet, xvector):
        path = tmp_path / "other.yaml"
        path.write_text(text.replace(ecapa, f"{node}\n"))
        hparams = load_hparams(path, overrides_for("ham_ecapa", tmp_path))
        loss = forward(hparams)
        assert loss.isfinite()


# ------------------------------------------------------------ the stock scripts


def test_the_stock_scripts_find_their_keys():
    assert set(TRAIN_KEYS) <= set(read_nodes(BASE))
    assert set(VERIFY_KEYS) <= set(read_nodes(VERIFICATION))


# ------------------------------------------------------------ loading


@pytest.mark.parametrize(
    "overrides, message",
    [
        ("marign: 0", "ham_ecapa.yaml has no key marign; did you mean margin"),
        ("lr: 0\nlr: 1", "the command line has lr twice"),
        ("lr: [", "the command line is not valid YAML"),
        ("lr", "expected options of the form --key=value"),
        ("lr: abc", "lr is abc, expected a number like 0.001"),
        ("data_folder: x\nmargin: -1", "margin is -1, expected"),
        ("data_folder: x\nmap: !new:no.Map", "no such class as no.Map"),
        ("data_folder: x\nmodules: {x: !ref <y>}", 'cannot be resolved: .*"y"'),
        ("data_folder: x\nepoch_counter: {x: 1}", "Invalid argument to class"),
        ("", "pass --data_folder=.*make demo"),
    ],
)
def test_mistakes_in_options(overrides, message):
    with pytest.raises(InputError, match=message) as raised:
        load_hparams(BASE, overrides)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "is missing"),
        (b"", "has no keys"),
        (b"a: [", "is not valid YAML"),
        (b"lists_folder: !PLACEHOLDER", "pass --lists_folder=/path"),
        (b"a: !ref <b>", "cannot be resolved"),
    ],
)
def test_mistakes_in_a_file(content, message, tmp_path):
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        load_hparams(path)
    assert "\n" not in str(raised.value)


def test_an_error_of_the_code_itself_keeps_its_traceback(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: !apply:math.sqrt [-1]")
    with pytest.raises(ValueError) as raised:
        load_hparams(path)
    assert not isinstance(raised.value, InputError)


def test_the_file_of_a_run_loads_and_has_its_settings(tmp_path):
    overrides = overrides_for("aam_ecapa", tmp_path, lr=0.5)
    save_resolved(path_of("aam_ecapa"), overrides, tmp_path)
    saved = tmp_path / "hyperparams.yaml"
    settings = read_settings(path_of("aam_ecapa"), overrides)
    assert read_settings(saved) == settings and settings["lr"] == 0.5
    hparams = load_hparams(saved, "margin: 0.4")
    assert (hparams["lr"], hparams["margin"]) == (0.5, 0.4)
    loss_fn = read_nodes(saved)["compute_cost"]["loss_fn"]
    assert tag_of(loss_fn).endswith("AngularMargin")


def test_recipes_are_copied_and_find_their_hparams(tmp_path):
    """From the repository; test_wheel does the same from a wheel."""
    folder = copy_recipes(tmp_path / "recipes")
    script = folder / "VoxCeleb" / "speaker_verification.py"
    hparams = folder / "VoxCeleb" / "hparams"
    assert script.is_file() and (folder / "OwnCorpus" / "run.py").is_file()
    for path in HPARAMS.iterdir():
        assert (hparams / path.name).read_bytes() == path.read_bytes()
        assert find_hparams(f"hparams/{path.name}", script).is_file()
    assert find_hparams("other.yaml", script) == pathlib.Path("other.yaml")
    own = tmp_path / "verification.yaml"
    own.write_text("")
    assert find_hparams(own, script) == own
    with pytest.raises(InputError, match="recipes exists: name a new folder"):
        copy_recipes(folder)
