"""Crops: at random places that neither workers nor their order change."""

import soundfile
import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_hyperbolic.dataio.crops import Crop, SharedEpochCounter
from tests.dataio.test_audio import noise, write

SAMPLES = 1600


def test_a_crop_is_a_function_of_seed_epoch_and_name(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), 16000, subtype="FLOAT")
    whole = torch.from_numpy(noise())
    counter = SharedEpochCounter(1000)

    def places(seed, name):
        crop = Crop(SAMPLES, 16000, seed, counter)
        found = crop(name, path, 100, 15900)
        (place,) = (whole.unfold(0, SAMPLES, 1) == found).all(1).nonzero()
        return place.item()

    found = []
    for _ in counter:
        found.append(places(1, "a/1"))
        if counter.current == 1:
            assert len({found[0], places(2, "a/1"), places(1, "a/2")}) == 3
            assert places(1, "a/1") == found[0]
    # All places of the part of the file are equally likely.
    assert min(found) >= 100 and max(found) <= 15900 - SAMPLES
    assert min(found) < 200 and max(found) > 15800 - SAMPLES
    assert abs(sum(found) / len(found) - 7200) < 600


def test_persistent_workers_see_the_epoch(tmp_path):
    path = write(tmp_path / "a.wav", noise(), 16000)
    counter = SharedEpochCounter(3)
    crop = Crop(SAMPLES, 16000, counter=counter)
    data = DynamicItemDataset({str(n): {} for n in range(4)})
    data.add_dynamic_item(
        lambda name: crop(name, path, 0, 16000), takes="id", provides="sig"
    )
    data.set_output_keys(["id", "sig"])
    loader = make_dataloader(
        data, batch_size=2, num_workers=2, persistent_workers=True
    )
    seen = []
    for _ in counter:
        found = torch.cat([batch.sig.data for batch in loader])
        expected = [crop(str(n), path, 0, 16000) for n in range(4)]
        assert found.equal(torch.stack(expected))
        seen.append(found)
    assert not seen[0].equal(seen[1])
