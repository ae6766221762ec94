"""Score files: read, written, refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_hyperbolic.dataio.scores import read_score_table, write_scores
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_audio import ANY


def test_read_what_the_stock_script_writes(tmp_path):
    trials = [("a/s/1", "b/s/2", 0, -0.25), ("a/s/1", "a/é/3", 1, 0.9999996)]
    path = tmp_path / "scores.txt"
    lines = ["%s %s %i %f\n" % trial for trial in trials]  # noqa: UP031
    path.write_text("\ufeff" + "".join(lines), encoding="utf-8")
    enroll, test, labels, scores = read_score_table(path)
    assert enroll == ["a/s/1", "a/s/1"] and test == ["b/s/2", "a/é/3"]
    assert labels.tolist() == [0, 1] and labels.dtype == int
    assert scores.tolist() == [-0.25, 1.0] and scores.dtype == np.float64


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no such score file"),
        ("\n", "has no scores"),
        (
            "a/1 a/2 1 0.5\na/1 b/1 0 nan\n",
            "line 2: 'a/1 b/1 0 nan' is not a sco",
        ),
        ("a/1\x0ca/2 1 0.5\n\na/1 b/1 1\n", "line 3: 'a/1 b/1 1' is not a"),
        ("a/1 b/1 2 0.5\n", "line 1: 'a/1 b/1 2 0.5' is not a score line"),
        ("a/1 b/1 1 0,5\n", "line 1: 'a/1 b/1 1 0,5' is not a score line"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, content, message):
    path = tmp_path / "scores.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_score_table(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


FIELDS = st.sampled_from(["0", "1", "nan", "1e999", "a/1", "0.5", " ", "\x0c"])
FIELDS |= st.text(max_size=3) | st.floats().map(repr)
ROWS = st.lists(FIELDS, max_size=5) | st.tuples(
    st.just("a/1"), st.just("é/2"), st.sampled_from("01"), st.floats().map(repr)
)


@given(st.lists(ROWS, max_size=3), st.binary(max_size=5))
@ANY
def test_any_file_is_read_or_refused(tmp_path, lines, junk):
    """What is read is the same, to the last digit, when written and read."""
    path = tmp_path / "scores.txt"
    text = "".join(" ".join(line) + "\n" for line in lines)
    path.write_bytes(text.encode("utf-8", "surrogatepass") + junk)
    try:
        table = read_score_table(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    assert np.isfinite(table.scores).all()
    new = tmp_path / "new folder" / "scores.txt"
    write_scores(new, *table)
    for column, again in zip(table, read_score_table(new), strict=True):
        assert np.array_equal(column, again)
