"""Histograms of radii, and training curves."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from speechbrain_hyperbolic.analysis.columns import make_column
from speechbrain_hyperbolic.analysis.figures import (
    draw_curves,
    draw_radii,
    save_figure,
)
from speechbrain_hyperbolic.errors import InputError


def test_histograms_are_shares():
    rng = np.random.default_rng(0)
    radii = np.concatenate([rng.uniform(0.8, 1, 900), rng.uniform(1, 1.2, 100)])
    sex = make_column("sex", ["f"] * 900 + ["m"] * 100)
    figure = draw_radii({"centers": (radii, sex)}, 1.3, r"$\frac$")
    (axes,) = figure.axes
    for patch, values in zip(
        axes.patches, (radii[:900], radii[900:]), strict=True
    ):
        share, edges, _ = patch.get_data()
        assert share.sum() == pytest.approx(100)
        inside = (edges[3] <= values) & (values < edges[4])
        assert share[3] == pytest.approx(100 * inside.mean())
    medians = [line.get_xdata()[0] for line in axes.lines]
    np.testing.assert_allclose(
        medians, [np.median(radii[:900]), np.median(radii[900:]), 1.3]
    )
    figure.draw_without_rendering()


def test_points_on_the_cap_are_counted():
    radii = np.array([1.3, 1.3, 1.3, 0.8], np.float32)
    figure = draw_radii({"a": (radii, None), "b": (radii[:3], None)}, cap=1.3)
    labels = [
        axes.get_legend().get_texts()[0].get_text() for axes in figure.axes
    ]
    assert labels == [
        "all: 4, median 1.30, 75% on the cap",
        "all: 3, median 1.30, 100% on the cap",
    ]
    for axes in figure.axes:
        share = axes.patches[0].get_data().values
        assert share.sum() == pytest.approx(100)


def test_curves_have_the_panels_that_have_data():
    epochs = np.arange(1.0, 4)
    log = {"epoch": epochs, "valid loss": 1 / epochs}
    log |= {f"train radius_centers_{q}": epochs for q in ("05", "50", "95")}
    log |= {"train cap_embeddings": epochs / 10, "train cap_centers": epochs}
    short = {"epoch": epochs[:1], "valid loss": epochs[:1]}
    figure = draw_curves({r"$\frac$": log, "short": short})
    panels = {axes.get_title().split("\n")[0]: axes for axes in figure.axes}
    assert list(panels) == [
        "validation loss",
        "radius of centers",
        "on the cap (%): embeddings (solid)",
    ]
    first, second = panels["validation loss"].lines
    np.testing.assert_array_equal(first.get_ydata(), 1 / epochs)
    assert second.get_marker() == "o"  # a single epoch is seen
    solid = panels["on the cap (%): embeddings (solid)"].lines[0]
    np.testing.assert_allclose(solid.get_ydata(), 10 * epochs)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [r"$\frac$", "short"]
    figure.draw_without_rendering()
    with pytest.raises(InputError, match="no log has"):
        draw_curves({"a": {"epoch": epochs}})


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "plot.png"
    path.write_bytes(b"old")

    def fail(self, file, **kwargs):
        with open(file, "wb") as partial:
            partial.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure(Figure(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
