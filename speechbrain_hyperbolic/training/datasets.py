"""From a corpus to the data sets of the training recipe."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from speechbrain.dataio.dataset import DynamicItemDataset, set_output_keys
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.dataio.sampler import BalancingDataSampler

from speechbrain_hyperbolic.dataio.corpus import read_corpus
from speechbrain_hyperbolic.dataio.crops import Crop
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus, read_csv
from speechbrain_hyperbolic.dataio.shards import (
    SHUFFLE_BUFFER,
    ShardSampler,
    open_member,
    read_shard_list,
)
from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.dataio.trials import (
    check_names,
    fetch_trials,
    read_trials,
    trial_speakers,
)
from speechbrain_hyperbolic.errors import InputError, shown
from speechbrain_hyperbolic.evaluation.scorer import warn_of_training_speakers
from speechbrain_hyperbolic.training.checkpoints import LABELS


def prepare(hparams: dict[str, Any]) -> None:
    """Writes the CSV files, without the speakers of the trial list."""
    # The stock hparams files lack the keys that are read by get.
    if hparams.get("shards_folder") or hparams["skip_prep"]:
        _warn_of_test_speakers(hparams)
        return  # shards are made from such files
    corpus = read_corpus(
        hparams["data_folder"],
        hparams.get("speaker_level"),
        outputs=hparams["save_folder"],
    )
    source, test_speakers = hparams["verification_file"], set()
    if source is not None:  # null: all speakers train
        path = fetch_trials(source, hparams["save_folder"])
        trials = read_trials(path, hparams.get("enrollment_file"), corpus)
        check_names(trials, corpus, path)
        test_speakers = trial_speakers(trials)
    prepare_corpus(
        corpus,
        hparams["save_folder"],
        test_speakers=test_speakers,
        split_ratio=hparams["split_ratio"],
        sample_rate=hparams["sample_rate"],
        check_audio=hparams.get("check_audio", "header"),
        seed=hparams["seed"],
        vad=hparams.get("vad", False),
    )


def _warn_of_test_speakers(hparams: dict[str, Any]) -> None:
    """Of those in a list of trials, if it is a file, who train all the same."""
    path = str(hparams.get("verification_file"))
    if os.path.isfile(path):
        trials = read_trials(path, hparams.get("enrollment_file"))
        csv_file = _annotations(hparams)[0]
        warn_of_training_speakers(csv_file, verification_file=trials)


def count_speakers(settings: dict[str, Any]) -> int:
    """The number of training speakers, after the preparation."""
    rows = read_table(_annotations(settings)[0], ["spk_id"])
    return len({row["spk_id"] for _, row in rows})


def _annotations(settings: dict[str, Any]) -> list[Any]:
    if packed := settings.get("shards_folder"):
        names = "train.csv", "dev.csv"
        return [pathlib.Path(packed, name) for name in names]
    return [settings["train_annotation"], settings["valid_annotation"]]


def make_datasets(
    hparams: dict[str, Any],
) -> tuple[Any, Any, CategoricalEncoder]:
    """Labeled crops for training and for validation, and the labels."""
    sample_rate, seed = hparams["sample_rate"], hparams["seed"]
    samples = int(sample_rate * hparams["sentence_len"])
    counter = hparams["epoch_counter"]
    middle = Crop(samples, sample_rate)
    crops = [middle, middle]
    if hparams["random_chunk"]:
        crops[0] = Crop(samples, sample_rate, seed, counter)

    files, takes = _annotations(hparams), ["id", "wav", "start", "stop"]
    packed = hparams.get("shards_folder")
    if packed:
        tables = [read_shard_list(file, sample_rate) for file in files]
        takes.append("file")
    else:
        tables = [read_csv(file, hparams["data_folder"]) for file in files]
    speakers = [{row["spk_id"] for row in rows.values()} for rows in tables]
    encoder = _encoder(hparams["out_n_neurons"], files, speakers)
    datasets = [DynamicItemDataset(rows) for rows in tables]
    for dataset, crop in zip(datasets, crops, strict=True):
        if packed:
            dataset.add_dynamic_item(
                open_member, ["wav", "offset", "size"], "file"
            )
        dataset.add_dynamic_item(crop, takes, "sig")
        dataset.add_dynamic_item(
            encoder.encode_label_torch, "spk_id", "spk_id_encoded"
        )
    set_output_keys(datasets, ["id", "sig", "spk_id_encoded"])
    sampler = hparams.get("sampler")
    if sampler not in (None, "balanced"):
        raise InputError(f"sampler is {sampler}, expected balanced or null")
    if sampler:
        datasets[0].sampler = BalancingDataSampler(
            datasets[0], "spk_id", seed=seed
        )
    elif packed:
        buffer = hparams.get("shuffle_buffer") or SHUFFLE_BUFFER
        datasets[0].sampler = ShardSampler(tables[0], buffer, seed, counter)
    return *datasets, encoder


def _encoder(
    out_n_neurons: int, sources: Sequence, speakers: Sequence[set[str]]
) -> CategoricalEncoder:
    """The labels, the same for any split of a corpus: names are sorted."""
    (train, valid), (known, others) = sources, speakers
    if strangers := sorted(others - known):
        raise InputError(
            f"{valid} has the speaker {shown(strangers[0])}, which {train} "
            "lacks: validation is on the training speakers"
        )
    if len(known) != out_n_neurons:
        raise InputError(
            f"out_n_neurons is {out_n_neurons}, but {train} has {len(known)} "
            f"speakers: pass --out_n_neurons={len(known)}"
        )
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(sorted(known))
    encoder.expect_len(out_n_neurons)
    return encoder


def save_labels(
    label_encoder: CategoricalEncoder, hparams: dict[str, Any]
) -> None:
    """Writes which output is which speaker, if what is resumed has the same."""
    path = pathlib.Path(hparams["save_folder"]) / LABELS
    with atomic_path(path) as temporary:
        label_encoder.save(temporary)
        same = path.is_file() and path.read_bytes() == temporary.read_bytes()
        if hparams["checkpointer"].list_checkpoints() and not same:
            raise InputError(
                f"{path.parent} holds a run on other speakers: pass another "
                "--output_folder"
            )
