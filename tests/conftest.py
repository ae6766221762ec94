"""Where the tests find what lies outside the repository."""

import os
import pathlib

import pytest
from speechbrain.utils.importutils import LazyModule

# Hypothesis asks every loaded module for its file; SpeechBrain's lazy modules
# would import optional packages to answer.
LazyModule.__file__ = None

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHARED = pathlib.Path(
    os.environ.get("SBH_SHARED", ROOT.parent / "shared")
).resolve()


@pytest.fixture(scope="session")
def speechocean():
    """Real speech: 250 speakers, see its SOURCE.md."""
    path = SHARED / "data" / "speechocean762"
    if not path.exists():
        pytest.skip(f"{path} is absent: set SBH_SHARED to the folder of data")
    return path


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT
