"""Histograms of radii, and training curves."""

import numpy as np
import pytest

from speechbrain_hyperbolic.analysis.figures import draw_curves, draw_radii
from speechbrain_hyperbolic.errors import InputError


def test_histograms_are_shares():
    rng = np.random.default_rng(0)
    centers = np.append(rng.uniform(0.8, 1.2, 75), np.full(25, 1.3))
    radii = {"centers": centers, "embeddings": np.full(9, 1.3, np.float32)}
    (axes,) = draw_radii(radii, 1.3).axes
    for patch, values in zip(axes.patches, radii.values(), strict=True):
        share, edges, _ = patch.get_data()
        assert share.sum() == pytest.approx(100)
        inside = (edges[3] <= values) & (values < edges[4])
        assert share[3] == pytest.approx(100 * inside.mean())
    lines = [line.get_xdata()[0] for line in axes.lines]
    np.testing.assert_allclose(lines, [np.median(centers), 1.3, 1.3])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"centers: median {np.median(centers):.2f}, 25% on the cap",
        "embeddings: median 1.30, 100% on the cap",
        "cap of the radius, 1.30",
    ]


def test_curves_have_the_panels_that_have_data():
    epochs = np.arange(1.0, 4)
    log = {"epoch": epochs, "valid loss": 1 / epochs}
    log |= {"train cap_embeddings": epochs / 10}
    short = {"epoch": epochs[:1], "valid loss": epochs[:1]}
    figure = draw_curves({r"$\frac$": log, "short": short})
    figure.draw_without_rendering()  # names are not formulas
    loss, on_cap = figure.axes
    assert loss.get_title() == "validation loss"
    assert on_cap.get_title() == "embeddings on the cap (%)"
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), 1 / epochs)
    assert loss.lines[1].get_marker() == "o"  # a single epoch is seen
    np.testing.assert_allclose(on_cap.lines[0].get_ydata(), 10 * epochs)
    with pytest.raises(InputError, match="no log has"):
        draw_curves({"a": {"epoch": epochs}})
