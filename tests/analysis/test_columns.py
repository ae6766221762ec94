"""Columns of a table of speakers."""

import numpy as np
import pytest

from speechbrain_hyperbolic.analysis.columns import (
    OTHER,
    UNKNOWN,
    columns_of,
)
from speechbrain_hyperbolic.dataio.corpus import read_speaker_table


def column(values):
    speakers = [str(i) for i in range(len(values))]
    table = {s: {"x": v} for s, v in zip(speakers, values, strict=True)}
    return columns_of(table, speakers)["x"]


def test_few_values_are_categories():
    few = column(["2", "1", "", "2"])
    assert few.numbers is None and few.categories == ["1", "2"]
    groups = few.groups()
    assert list(groups) == ["1", "2", UNKNOWN]
    assert groups["2"].tolist() == [True, False, False, True]
    assert groups[UNKNOWN].tolist() == [False, False, True, False]


def test_many_numbers_are_split_at_the_median():
    ages = column([str(i) for i in range(9)] + [""])
    assert np.isnan(ages.numbers[-1]) and ages.numbers[8] == 8
    groups = ages.groups()
    assert [which.sum() for which in groups.values()] == [5, 4, 1]
    assert groups["x up to 4"][:5].all()


@pytest.mark.parametrize("odd", ["nan", "inf", "no number"])
def test_the_rarest_of_many_categories_are_others(odd):
    many = column([*"abcdefgh", *"hgfed", odd])
    assert many.numbers is None
    assert many.categories == [*"defgh", OTHER]
    groups = many.groups()
    assert groups[OTHER].sum() == 4  # a, b, c and the odd one
    assert sum(which.astype(int) for which in groups.values()).tolist() == (
        [1] * 14
    )


def test_a_table_that_says_nothing_gives_no_columns():
    assert columns_of({"a": {"sex": "f"}}, ["b"]) == {}
    assert columns_of({}, ["b"]) == {}


def test_real_table(speechocean):
    table = read_speaker_table(speechocean / "speakers.csv")
    columns = columns_of(table, list(table))
    assert columns["sex"].categories == ["f", "m"]
    assert columns["age_group"].categories == ["adult", "child"]
    assert columns["age"].numbers.min() == 6


def test_spreadsheets():
    # "spk_id,sex," as a header, and a blank before a comma
    table = {"ann": {"spk_id": "ann", "sex": "f ", "": ""}}
    columns = columns_of(table, ["ann"])
    assert list(columns) == ["sex"] and columns["sex"].values == ["f"]
