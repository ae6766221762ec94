"""A corpus of tones."""

import pytest

from tests.corpora import make_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Six speakers to train on, two in the trial list, and sounds."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))
