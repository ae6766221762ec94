"""Score files: read, written, refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_hyperbolic.dataio.scores import read_score_table, write_scores
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_audio import ANY


def test_read_what_the_stock_script_writes(tmp_path):
    trials = [("a/s/1", "b/s/2", 0, -0.25), ("a/s/1", "a/t/3", 1, 0.9999996)]
    path = tmp_path / "scores.txt"
    lines = ["%s %s %i %f\n" % trial for trial in trials]  # noqa: UP031
    path.write_text("\ufeff" + "".join(lines), encoding="utf-8")
    enroll, test, labels, scores = read_score_table(path)
    assert enroll == ["a/s/1", "a/s/1"] and test == ["b/s/2", "a/t/3"]
    assert labels.tolist() == [0, 1] and labels.dtype == int
    assert scores.tolist() == [-0.25, 1.0] and scores.dtype == np.float64


def test_round_trip_keeps_every_digit(tmp_path):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=1000) * 10.0 ** rng.integers(-9, 9, 1000)
    scores[:3] = 0.5, np.nextafter(0.5, 1), 1e4
    labels = rng.random(1000) < 0.3
    enroll, test = ([f"{side}/é/{i}" for i in range(1000)] for side in "ab")
    path = tmp_path / "new folder" / "scores.txt"
    write_scores(path, enroll, test, labels, scores)
    table = read_score_table(path)
    assert (table.enroll, table.test) == (enroll, test)
    np.testing.assert_array_equal(table.labels, labels)
    np.testing.assert_array_equal(table.scores, scores)


@pytest.mark.parametrize(
    "line", ["a/1 b/1 1", "a/1 b/1 2 0.5", "1 a/1 b/1", "a/1 b/1 1 0,5"]
)
def test_malformed_line_is_numbered(tmp_path, line):
    path = tmp_path / "scores.txt"
    path.write_text(f"a/1\x0ca/2 1 0.5\n\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_score_table(path)
    assert f"{path}, line 3: '{line}' is not a score line" in str(caught.value)


def test_missing_empty_and_not_finite(tmp_path):
    path = tmp_path / "scores.txt"
    with pytest.raises(InputError, match="no such score file"):
        read_score_table(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="has no scores"):
        read_score_table(path)
    path.write_text("a/1 a/2 1 0.5\na/1 b/1 0 nan\n")
    with pytest.raises(InputError, match="line 2: the score is nan,"):
        read_score_table(path)


FIELDS = st.sampled_from(["0", "1", "nan", "1e999", "a/1", "0.5", " ", "\x0c"])


@given(
    st.lists(st.lists(FIELDS | st.text(max_size=3), max_size=5), max_size=3),
    st.binary(max_size=5),
)
@ANY
def test_any_file_is_read_or_refused(tmp_path, lines, junk):
    """What is read is the same when it is written and read again."""
    path = tmp_path / "scores.txt"
    text = "".join(" ".join(line) + "\n" for line in lines)
    path.write_bytes(text.encode("utf-8", "surrogatepass") + junk)
    try:
        table = read_score_table(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    assert np.isfinite(table.scores).all()
    write_scores(path, *table)
    for column, again in zip(table, read_score_table(path), strict=True):
        assert np.array_equal(column, again)
