"""The pages: the tutorial runs, links lead somewhere, names are documented."""

import json
import os
import pathlib
import re
import sys

import pytest

from speechbrain_hyperbolic import __version__
from tests.conftest import ROOT
from tests.processes import run_python

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
FOLDERS = ("*.md", "docs/*.md", "[a-z]*/README.md", "recipes/*/README.md")
PAGES = [path for name in FOLDERS for path in sorted(ROOT.glob(name))]


def as_script(source):
    """A cell in Python: without IPython's settings, its commands by the shell.

    In ``!command {name}`` IPython replaces the name as an f-string does.
    """
    source = re.sub(r"^%.*", "", source, flags=re.M)
    command = r"^( *)!((?:.*\\\n)*.*)"  # with the lines that continue it
    return re.sub(command, r"\1_shell(rf'''\2''')", source, flags=re.M)


def test_the_tutorial_runs(tmp_path):
    pytest.importorskip("espeakng_loader")
    shell = (
        "import subprocess\n"
        "def _shell(command):\n"
        "    subprocess.run(command, shell=True, check=True)"
    )
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    script = tmp_path / "tutorial.py"
    script.write_text("\n".join([shell, *map(as_script, code)]))
    commands = pathlib.Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
    }
    printed = run_python(script, env=environment, cwd=tmp_path).stdout
    assert "B - A" in printed and "stock score" in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page):
    """The build, ``make docs``, checks those to headings too."""
    text = page.read_text(encoding="utf-8")
    if page.parent in (ROOT, ROOT / "docs") and page.stem != "CHANGELOG":
        assert text.count("\n") < 150, f"{page} is longer than a reader follows"
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_release_is_cited():
    """The version is stated once more, for those who read no Python."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in text
