"""Damaged and hostile files: read as they should be, or refused in a line.

The same strategies as of ``python -m benchmarks.fuzz``, at small counts.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.fuzz.readers import READERS
from benchmarks.fuzz.worker import judge, write

SETTINGS = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],  # what is found here is reduced by hand
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", READERS)
def test_no_file_does_harm(name, tmp_path):
    outcomes = set()

    @SETTINGS
    @given(READERS[name].files)
    def each(files):
        write(tmp_path / "input", files)
        outcomes.add(judge(READERS[name].read, tmp_path / "input") is None)

    each()
    assert outcomes == {True, False}  # else nothing was tried
