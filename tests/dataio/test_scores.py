"""Score files: read, written, refused."""

import numpy as np
import pytest

from speechbrain_hyperbolic.dataio.scores import read_score_table, write_scores
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.metrics import error_rates


def test_read_what_the_stock_script_writes(tmp_path):
    trials = [("a/s/1", "b/s/2", 0, -0.25), ("a/s/1", "a/t/3", 1, 0.9999996)]
    path = tmp_path / "scores.txt"
    lines = ["%s %s %i %f\n" % trial for trial in trials]  # noqa: UP031
    path.write_text("".join(lines))
    enrol, test, labels, scores = read_score_table(path)
    assert enrol == ["a/s/1", "a/s/1"] and test == ["b/s/2", "a/t/3"]
    assert labels.tolist() == [0, 1] and labels.dtype == int
    assert scores.tolist() == [-0.25, 1.0] and scores.dtype == np.float64


def test_round_trip_keeps_every_digit(tmp_path):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=1000) * 10.0 ** rng.integers(-9, 9, 1000)
    scores[:3] = 0.5, np.nextafter(0.5, 1), 1e4
    labels = rng.random(1000) < 0.3
    enrol, test = ([f"{side}/é/{i}" for i in range(1000)] for side in "ab")
    path = tmp_path / "new folder" / "scores.txt"
    write_scores(path, enrol, test, labels, scores)
    table = read_score_table(path)
    assert (table.enrol, table.test) == (enrol, test)
    np.testing.assert_array_equal(table.labels, labels)
    np.testing.assert_array_equal(table.scores, scores)
    np.testing.assert_array_equal(
        error_rates(table.scores[labels], table.scores[~labels]),
        error_rates(scores[labels], scores[~labels]),
    )
    # As the stock script's readers do: fields between single spaces.
    fields = [line.split(" ") for line in path.read_text("utf-8").splitlines()]
    assert [float(of[3]) for of in fields] == scores.tolist()
    assert {of[2] for of in fields} == {"0", "1"}


def test_float32_scores_are_written(tmp_path):
    path = tmp_path / "scores.txt"
    scores = np.array([0.1, 0.7], np.float32)
    write_scores(path, "ab", "bb", np.array([0, 1]), scores)
    assert read_score_table(path).scores.astype(np.float32).tolist() == [
        *scores.tolist()
    ]


def test_columns_of_different_lengths_write_nothing(tmp_path):
    path = tmp_path / "scores.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="shorter|longer"):
        write_scores(path, ["a", "b"], ["a", "b"], [1, 0], [0.5])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "line",
    [
        "a/1 b/1 1",
        "a/1 b/1 1 0.5 0.6",
        "a/1 b/1 2 0.5",
        "a/1 b/1 0.5 1",
        "1 a/1 b/1",
        "a/1 b/1 1 high",
        "a/1 b/1 1 0,5",
    ],
)
def test_malformed_line_is_numbered(tmp_path, line):
    path = tmp_path / "scores.txt"
    path.write_text(f"a/1 a/2 1 0.5\n\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_score_table(path)
    assert f"{path}, line 3: '{line}' is no score" in str(caught.value)


@pytest.mark.parametrize("score", ["nan", "inf", "-inf"])
def test_score_that_is_not_finite_is_numbered(tmp_path, score):
    path = tmp_path / "scores.txt"
    path.write_text(f"a/1 a/2 1 0.5\na/1 b/1 0 {score}\n")
    with pytest.raises(InputError, match=f"line 2: the score is {score},"):
        read_score_table(path)


def test_missing_empty_and_binary(tmp_path):
    path = tmp_path / "scores.txt"
    with pytest.raises(InputError, match="no such score file"):
        read_score_table(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="has no scores"):
        read_score_table(path)
    path.write_bytes(b"\x80\x81\xff\n")
    with pytest.raises(InputError, match="line 1: .* is no score"):
        read_score_table(path)
