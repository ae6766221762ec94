"""What is known of the speakers of ``runs``."""

import pytest

from tests.analysis.runs import SPEAKERS


@pytest.fixture
def table():
    """What is known of the speakers of the runs, but for one."""
    return {
        speaker: {"sex": "fm"[i % 2], "age": str(20 + i)}
        for i, speaker in enumerate(SPEAKERS[:-1])
    }


@pytest.fixture
def speakers_csv(tmp_path, table):
    path = tmp_path / "speakers.csv"
    rows = [f"{s},{row['sex']},{row['age']}" for s, row in table.items()]
    path.write_text("\n".join(["spk_id,sex,age", *rows]))
    return path
