"""Each system's hparams file, loaded as the stock script does and by ours."""

import pathlib
import shutil

import pytest
import ruamel.yaml
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.export import export_model
from speechbrain_hyperbolic.hparams import (
    check_same_run,
    load_hparams,
    nest_overrides,
    resolve,
)
from speechbrain_hyperbolic.training import MAY_CHANGE

HPARAMS = pathlib.Path(__file__).parents[1] / "hparams"
BASE = "ham_ecapa"
SYSTEMS = sorted(
    path.stem
    for path in [*HPARAMS.glob("*_ecapa.yaml"), HPARAMS / "best.yaml"]
    if not path.stem.startswith("verification_")
)
DELTAS = [system for system in SYSTEMS if system != BASE]
SPEAKERS = 8
SMALL = {"channels": 16, "out_n_neurons": SPEAKERS}
# What each file is for, where it is a key or the class of a node.
STATED = {
    "softmax_ecapa": {"margin": 0, "scale": 1, "similarity": "Dot"},
    "softmax_s30_ecapa": {"margin": 0, "scale": 30, "similarity": "Dot"},
    "am_ecapa": {"similarity": "Cosine", "loss_fn": "AdditiveMargin"},
    "aam_ecapa": {"similarity": "Cosine", "loss_fn": "AdditiveAngularMargin"},
    "ram_ecapa": {"similarity": "Cosine", "loss_fn": "RealAdditiveMargin"},
    "h_ecapa": {"clip_c": 5.0, "margin": 0, "similarity": "ClippedDistance"},
    "eh_am_ecapa": {
        "classifier": "JointClassifier",
        "compute_cost": "JointLoss",
    },
    "ham_ecapa": {"similarity": "ClippedDistance", "clip_c": 3.0},
    "ham_exact_ecapa": {"similarity": "ExactDistance", "curvature": 1.0},
    "ham_learnable_ecapa": {"similarity": "ExactDistance", "curvature": 1.0},
    "ham_smooth_ecapa": {"similarity": "SmoothDistance", "cap": 2.3},
    "ham_subcentre_ecapa": {"sub_centres": 3},
    "ham_topk_ecapa": {"top_k": 5, "penalty": 0.06},
    "ham_sharded_ecapa": {
        "classifier": "ShardedCentreClassifier",
        "sampled": None,
        "chunk_size": None,
    },
    "ham_schedule_ecapa": {"margin_schedule": "MarginSchedule"},
    "ham_shards_ecapa": {"shuffle_buffer": 10_000},
    "best": {
        "similarity": "SmoothDistance",
        "cap": 2.3,
        "margin": 0.4,
        "sub_centres": 1,
    },
}
WITHOUT_PUBLISHED_MARGIN = {"softmax_ecapa", "softmax_s30_ecapa", "h_ecapa"}


def path_of(system):
    return HPARAMS / f"{system}.yaml"


def load(system, output_folder, **overrides):
    """By our loader, overrides flat."""
    return load_hparams(
        path_of(system),
        {
            "data_folder": "x",
            "output_folder": str(output_folder),
            **SMALL,
            **overrides,
        },
    )


def outputs_and_loss(hparams):
    """Of the same embeddings and, where the shapes allow it, centres."""
    torch.manual_seed(0)
    head = hparams["classifier"]
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter)
    outputs = head(torch.randn(4, 1, 192))
    return outputs, hparams["compute_cost"](outputs, torch.arange(4)[:, None])


@pytest.mark.parametrize("system", SYSTEMS)
def test_step_as_the_stock_script_takes_it(system, tmp_path):
    """Plain HyperPyYAML, overrides in ``recipe``; every parameter learns."""
    own = {"data_folder": "x"}
    recipe = {**SMALL, "output_folder": str(tmp_path)}
    overrides = (
        {**own, **recipe} if system == BASE else own | {"recipe": recipe}
    )
    with open(path_of(system)) as file:
        hparams = load_hyperpyyaml(file, overrides)
    modules = torch.nn.ModuleDict(hparams["modules"]).train()
    assert modules["classifier"] is hparams["classifier"]
    assert (
        hparams["checkpointer"].recoverables["classifier"]
        is (hparams["classifier"])
    )
    features = modules["compute_features"](torch.randn(4, 8000))
    features = modules["mean_var_norm"](features, torch.ones(4))
    outputs = modules["classifier"](modules["embedding_model"](features))
    loss = hparams["compute_cost"](
        outputs, torch.arange(4)[:, None], torch.ones(4)
    )
    loss.backward()
    assert loss.isfinite()
    for name, parameter in modules.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    hparams["error_stats"]().append(
        ["a"] * 4, outputs, torch.arange(4)[:, None], torch.ones(4)
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_is_what_it_says(system, tmp_path):
    hparams = load(system, tmp_path)
    for key, stated in STATED[system].items():
        value = hparams[key]
        if isinstance(stated, str):
            value = type(value).__name__
        assert value == stated, key
    if system not in WITHOUT_PUBLISHED_MARGIN:
        margin = STATED[system].get("margin", 0.2)
        assert (hparams["margin"], hparams["scale"]) == (margin, 30)
    learns = system == "ham_learnable_ecapa"
    assert learns == any(
        p.ndim == 0 for p in hparams["classifier"].parameters()
    )


def test_losses_differ(tmp_path):
    """Those that start alike are told apart by what is learnt later, but for
    two that are other ways to compute the published one.
    """
    losses = {
        system: outputs_and_loss(load(system, tmp_path))[1].item()
        for system in SYSTEMS
    }
    assert losses.pop("ham_learnable_ecapa") == losses["ham_exact_ecapa"]
    assert losses.pop("ham_sharded_ecapa") == losses[BASE]
    assert losses.pop("ham_shards_ecapa") == losses[BASE]
    values = sorted(losses.values())
    assert all(b - a > 1e-3 for a, b in zip(values, values[1:], strict=False))


def test_published_defaults(tmp_path):
    """The factored file is what HyperbolicClassifier and the margin were."""
    hparams = load(BASE, tmp_path)
    head, loss_fn = hparams["classifier"], hparams["loss_fn"]
    assert head.similarity.c == 3.0
    assert head.weight.std().item() == pytest.approx(1e-3, rel=0.1)
    assert (loss_fn.margin, loss_fn.scale) == (0.2, 30)


@pytest.mark.parametrize("system", DELTAS)
def test_is_a_small_file(system):
    lines = path_of(system).read_text().splitlines()
    assert len(lines) <= 30 and lines[0].startswith("# ")
    assert all(len(line) <= 80 for line in lines if line.startswith("#"))


@pytest.mark.parametrize("system", DELTAS)
def test_states_no_key_in_vain(system):
    """What the base has not is referred to: a typo would be silent."""
    yaml = ruamel.yaml.YAML()
    text = path_of(system).read_text()
    stated = yaml.load(text)["recipe"]
    for key in stated.keys() - yaml.load(path_of(BASE)).keys():
        assert f"<recipe[{key}]>" in text
    assert stated["output_folder"] == f"results/{system}"


@pytest.mark.parametrize("system", SYSTEMS)
def test_flat_overrides(system, tmp_path):
    """They reach the encoder, the head, the loss and what is nested."""
    hparams = load(
        system,
        tmp_path,
        channels=32,
        scale=7,
        margin=0.5,
        batch_size=5,
        wav_augment={"concat_original": False},
    )
    assert hparams["embedding_model"].blocks[0].conv.conv.out_channels == 32
    assert outputs_and_loss(hparams)[0].shape[-1] == SPEAKERS
    assert hparams["dataloader_options"]["batch_size"] == 5
    assert not hparams["wav_augment"].concat_original
    assert hparams["save_folder"] == f"{tmp_path}/save"
    cost = hparams["compute_cost"]
    for loss in getattr(cost, "losses", [cost]):
        margin = loss.loss_fn.margin
        assert getattr(margin, "end", margin) == 0.5
        assert loss.loss_fn.scale == 7


@pytest.mark.parametrize("system", DELTAS)
def test_own_keys_can_be_overridden(system):
    """No key abbreviates an option of the stock command line."""
    nodes = resolve(path_of(system), {"data_folder": "x"})
    for key in {"recipe", *nodes}:
        _, run_opts, overrides = sb.parse_arguments(["a.yaml", f"--{key}=7"])
        assert overrides.split() == [f"{key}:", "7"] or run_opts[key] == 7


def test_own_keys_reach_their_system(tmp_path):
    assert (
        load("ham_topk_ecapa", tmp_path, top_k=2, penalty=0.1)["loss_fn"].top_k
        == 2
    )
    assert (
        len(
            load("ham_subcentre_ecapa", tmp_path, sub_centres=2)[
                "classifier"
            ].weight
        )
        == 2 * SPEAKERS
    )
    sharded = load("ham_sharded_ecapa", tmp_path, sub_centres=2, sampled=0.5)
    assert len(sharded["classifier"].weight) == 2 * SPEAKERS
    assert sharded["classifier"].sampled == 0.5
    assert load("ham_smooth_ecapa", tmp_path, cap=1.5)["similarity"].cap == 1.5
    assert (
        load("ham_exact_ecapa", tmp_path, curvature=0.5)["similarity"].curvature
        == 0.5
    )
    assert load("eh_am_ecapa", tmp_path, loss_weights=[0.5, 0.5])[
        "compute_cost"
    ].weights == [0.5, 0.5]


def test_schedule_is_saved(tmp_path):
    """Its steps are in the checkpoint: a run goes on with its margin."""
    hparams = load("ham_schedule_ecapa", tmp_path, last_step=4)
    for _ in range(2):
        outputs_and_loss(hparams)[1].backward()
    assert hparams["loss_fn"].margin_now == pytest.approx(0.1)
    hparams["checkpointer"].save_checkpoint()
    again = load("ham_schedule_ecapa", tmp_path, last_step=4)
    again["checkpointer"].recover_if_possible()
    assert again["loss_fn"].margin_now == pytest.approx(0.1)


def test_nest_overrides():
    path = path_of("aam_ecapa")
    assert nest_overrides(path_of(BASE), "margin: 0.1\nx: 1") == {
        "margin": 0.1,
        "x": 1,
    }
    nested = {
        "data_folder": "x",
        "recipe": {"lr": 0.1, "margin": 0.1},
        "marign": 0,
    }
    flat = "{data_folder: x, margin: 0.1, recipe: {lr: 0.1}, marign: 0}"
    assert nest_overrides(path, flat) == nested
    assert nest_overrides(path, nested) == nested


@pytest.mark.parametrize(
    "system, overrides, message",
    [
        (BASE, "marign: 0", "ham_ecapa.yaml has no key marign; did you mean "),
        ("aam_ecapa", "marign: 0", "aam_ecapa.yaml has no key marign; did you"),
        (
            "aam_ecapa",
            "chanels: 8",
            "has no key chanels; did you mean channels",
        ),
        ("ham_topk_ecapa", "topk: 8", "has no key topk; did you mean top_k"),
        (
            "aam_ecapa",
            "recipe: {chanels: 8}",
            "chanels: .* is no key of ham_ecapa.yaml; did you mean channels",
        ),
        ("aam_ecapa", "recipe: 8\nlr: 1", "recipe is 8, expected keys of ham_"),
        ("aam_ecapa", "similarity: {c: 3}", "no mapping where .*similarity"),
        (
            "aam_ecapa",
            "lr: 0\nlr: 1",
            "aam_ecapa.yaml has lr twice",
        ),
        ("aam_ecapa", "margin: -1", "margin is -1, expected"),
        ("none_ecapa", "", "none_ecapa.yaml is missing"),
    ],
)
def test_bad_overrides(system, overrides, message):
    with pytest.raises(InputError, match=message) as raised:
        load_hparams(path_of(system), f"{overrides}\ndata_folder: x")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("system", SYSTEMS)
def test_without_a_corpus(system):
    with pytest.raises(InputError, match="pass --data_folder"):
        load_hparams(path_of(system))


@pytest.fixture
def run(tmp_path):
    """A run of AAM-Softmax, begun: its folder and what was overridden."""
    overrides = {"data_folder": "x", "output_folder": str(tmp_path / "run")}
    overrides |= SMALL
    nested = nest_overrides(path_of("aam_ecapa"), overrides)
    sb.create_experiment_directory(
        overrides["output_folder"], path_of("aam_ecapa"), nested
    )
    return tmp_path / "run", overrides


@pytest.mark.parametrize(
    "system, change, message",
    [
        ("aam_ecapa", {}, None),
        ("aam_ecapa", {"number_of_epochs": 7}, None),
        ("aam_ecapa", {"margin": 0.3}, "margin 0.2, and now it is 0.3: .*or "),
        ("aam_ecapa", {"channels": 8}, "channels 16, and now it is 8"),
        ("aam_ecapa", {"recipe": {"lr": 1}}, "lr 0.001, and now it is 1"),
        ("am_ecapa", {}, "loss_fn !new:.*Angular.*now it is !new:.*AdditiveM"),
    ],
)
def test_a_run_goes_on_with_the_same_settings(system, change, message, run):
    """Flattened they are compared, classes too."""
    folder, overrides = run
    arguments = path_of(system), overrides | change, folder, MAY_CHANGE
    if message is None:
        check_same_run(*arguments)
    else:
        with pytest.raises(InputError, match=message):
            check_same_run(*arguments)


def test_a_runs_file_loads(run):
    """hyperparams.yaml, which the stock recipe leaves, with all resolved."""
    folder, _ = run
    hparams = load_hparams(folder / "hyperparams.yaml", {"margin": 0.4})
    assert hparams["channels"] == 16
    assert hparams["margin"] == 0.4


def test_export(tmp_path):
    """The folder loads in the stock class, for a system of few lines too."""
    overrides = {"data_folder": "x", "output_folder": str(tmp_path), **SMALL}
    path = path_of("am_ecapa")
    hparams = load_hparams(path, overrides)
    hparams["checkpointer"].save_checkpoint()
    folder = export_model(path, overrides, hparams, tmp_path / "model")
    model = SpeakerRecognition.from_hparams(
        str(folder), savedir=str(tmp_path / "stock")
    )
    encoder = model.mods.embedding_model
    for name, value in hparams["embedding_model"].state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[name], value)


@pytest.mark.parametrize("system", DELTAS)
def test_verification_finds_the_run(system, tmp_path):
    """One verification file serves all: the encoder is the same."""
    trained = load(system, tmp_path / "run")
    with torch.no_grad():
        for parameter in trained["embedding_model"].parameters():
            parameter.fill_(0.5)
    trained["checkpointer"].save_checkpoint()
    hparams = load_hparams(
        HPARAMS / "verification_ham_ecapa.yaml",
        f"data_folder: x\ntraining: {{channels: 16, output_folder: "
        f"{tmp_path / 'run'}}}",
    )
    hparams["pretrainer"].collect_files()
    hparams["pretrainer"].load_collected()
    for parameter in hparams["embedding_model"].parameters():
        assert (parameter == 0.5).all()


def test_a_system_of_ones_own(tmp_path):
    """A file beside ours, or a copy of both, anywhere."""
    shutil.copy(path_of(BASE), tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "--- !apply:speechbrain_hyperbolic.hparams.flatten\n"
        "data_folder: !PLACEHOLDER\n"
        "recipe: !include:ham_ecapa.yaml\n"
        "    data_folder: !ref <data_folder>\n"
        "    compute_cost:\n"
        "        chunk_size: 4\n"
    )
    overrides = {"data_folder": "x", "output_folder": str(tmp_path), **SMALL}
    hparams = load_hparams(path, overrides)
    assert hparams["compute_cost"].chunk_size == 4
    assert hparams["compute_cost"].loss_fn.margin == 0.2


def test_files_of_corpora():
    """Published numbers of speakers and epochs."""
    for name, speakers, epochs in [
        ("ham_ecapa", 5994, 100),
        ("ham_ecapa_voxceleb1", 1211, 150),
        ("ham_ecapa_voxceleb12", 7205, 100),
        ("ham_ecapa_cnceleb", 2793, 100),
    ]:
        own = {"data_folder": "x"}
        if "lists_folder" in path_of(name).read_text():
            own["lists_folder"] = "y"
        nodes = resolve(path_of(name), own)
        found = nodes["out_n_neurons"], nodes["number_of_epochs"]
        assert found == (speakers, epochs), name


def test_a_second_placeholder_is_named():
    path = path_of("ham_ecapa_cnceleb")
    with pytest.raises(InputError, match="pass --lists_folder=/path"):
        load_hparams(path, {"data_folder": "x"})


def test_typo_in_a_file_that_an_included_one_includes():
    path = path_of("verification_ham_ecapa_cnceleb")
    own = {"data_folder": "x", "lists_folder": "y"}
    with pytest.raises(InputError, match="chanels.*did you mean channels"):
        load_hparams(path, own | {"training": {"chanels": 16}})
