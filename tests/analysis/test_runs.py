"""The command, from trained folders to files."""

import shutil

import pytest
import torch
from matplotlib.image import imread

from speechbrain_hyperbolic.analysis.__main__ import main
from speechbrain_hyperbolic.analysis.runs import (
    embed_training,
    is_hyperbolic,
    read_run,
)
from speechbrain_hyperbolic.errors import InputError
from tests.analysis.conftest import HEADS, SPEAKERS, write_run


def clipped_radius(vectors):
    norm = torch.linalg.vector_norm(vectors, dim=-1)
    return 2 * torch.atanh(norm.clamp(max=(1 - 1e-5) / 3**0.5))


@pytest.mark.parametrize("head", HEADS)
def test_centers_are_the_mean_of_the_last_epochs(tmp_path, head):
    states = write_run(tmp_path / head, head)
    shutil.move(tmp_path / head, tmp_path / "elsewhere")
    run = read_run(tmp_path / "elsewhere")
    name = "heads.1.weight" if head == "joint" else "weight"
    mean = ((states[-1][name] + states[-2][name]) / 2).double()
    torch.testing.assert_close(run.head.weight.double(), mean)
    count = 2 if head == "sub" else 1
    assert run.speakers == [s for s in SPEAKERS for _ in range(count)]
    points = run.centers()
    assert is_hyperbolic(run.head) == (head not in ("am", "stock"))
    if is_hyperbolic(run.head):
        torch.testing.assert_close(points.radius, clipped_radius(mean))
    else:  # directions only
        assert len(set(points.radius.tolist())) == 1
        unit = torch.nn.functional.normalize(mean)
        torch.testing.assert_close(points.vectors, unit)


def test_damaged_folders_are_refused_in_one_line(tmp_path):
    for text, message in (
        ("seed: 1", "has no classifier"),
        ("classifier: !new:no.Class", "cannot be built"),
    ):
        folder = tmp_path / message
        write_run(folder)
        (folder / "hyperparams.yaml").write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            main([str(folder)])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("head", ["ham", "am"])
def test_what_is_written(tmp_path, table, capsys, head):
    rows = [f"{speaker},{row['sex']}" for speaker, row in table.items()]
    csv = tmp_path / "speakers.csv"  # in the run's data_folder
    csv.write_text("\n".join(["spk_id,sex", *rows]))
    run = tmp_path / "run"
    write_run(run, head, f"data_folder: {tmp_path}\n")
    main([str(run)])
    files = sorted((run / "analysis").iterdir())
    assert sorted(capsys.readouterr().out.split()) == list(map(str, files))
    pictures = ["disk.png", "radii.png"][: 1 + (head == "ham")]
    assert [path.name for path in files] == ["disk.html", *pictures]
    for path in files[1:]:
        assert imread(path)[..., :3].std() > 0.01


def test_embeddings_of_the_training(demo, tmp_path):
    """Of a corpus that has moved since."""
    run = shutil.copytree(demo.run, tmp_path / "run")
    for file in (run / "hyperparams.yaml", run / "save" / "train.csv"):
        file.write_text(file.read_text().replace(str(demo.corpus), "/gone"))
    main([str(run), "--data_folder", str(demo.corpus)])
    assert (run / "analysis" / "radii.png").is_file()
    assert any((run / "embeddings").rglob("*.*"))
    points = embed_training(read_run(run), demo.corpus)
    torch.testing.assert_close(points.radius, clipped_radius(points.vectors))
