"""What a user of pip gets: the wheel, in a virtual environment of its own.

The wheel is built from the sdist, as pip does. What it depends on comes from
the environment that runs the tests, so that nothing is downloaded.
"""

import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BUILD_WHEEL = "import sys; from setuptools import build_meta; "
BUILD_WHEEL += "build_meta.build_wheel(sys.argv[1])"

IMPORT_ALL = """
import importlib, pkgutil, speechbrain_hyperbolic as package
def fail(name):
    raise
for module in pkgutil.walk_packages(package.__path__, "speechbrain_hyperbolic.",
                                    fail):
    importlib.import_module(module.name)
    print(module.name)
"""


def run(*command, **options):
    """A process outside the repository, without its path."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        **options,
    )


def output(*command, **options):
    """What a process that must succeed prints."""
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_of(root):
    """The package's files in the repository, as a wheel names them."""
    package = root / "speechbrain_hyperbolic"
    folders = os.walk(package, followlinks=True)
    files = {
        (pathlib.Path(folder) / name).relative_to(root).as_posix()
        for folder, _, names in folders
        for name in names
    }
    return {
        file
        for file in files
        if not {"__pycache__", "results"} & set(pathlib.PurePath(file).parts)
    }


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    """Built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    output(
        *(sys.executable, "setup.py", "-q", "egg_info", "--egg-base", folder),
        *("sdist", "--dist-dir", folder),
        cwd=root,
    )
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder)
    source = folder / sdist.name.removesuffix(".tar.gz")
    output(sys.executable, "-c", BUILD_WHEEL, folder, cwd=source)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the commands of an environment that has the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    output(sys.executable, "-m", "venv", "--without-pip", folder)
    commands = folder / pathlib.Path(sys.executable).parent.name
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = pathlib.Path(output(commands / "python", "-c", ask).strip())
    # A path alone: the running environment's own .pth files are not read, so
    # its editable installation of the repository is out of reach.
    heavy = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (site / "dependencies.pth").write_text("\n".join(dict.fromkeys(heavy)))
    pip = (commands / "python", "-m", "pip")
    install = ("install", "--no-index", "--no-deps", "--ignore-installed")
    output(*pip, *install, wheel, cwd=folder)
    return commands


@pytest.fixture(scope="module")
def requirements(wheel):
    """Those of the wheel and its extra "test", as on this Python."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    stated = map(Requirement, metadata.get_all("Requires-Dist"))
    return [
        requirement
        for requirement in stated
        if requirement.marker is None
        or requirement.marker.evaluate({"extra": "test"})
    ]


def pins(path, **environment):
    """Package -> version of a list, as on this machine but for what is given.

    A line is a name, ==, a version, and a marker where not all need it.
    """
    line = re.compile(r"([\w.-]+)==(\S+)(?: ; (.+?))? \\$", re.MULTILINE)
    return {
        name: version
        for name, version, marker in line.findall(path.read_text())
        if not marker or Marker(marker).evaluate(environment)
    }


@pytest.fixture(scope="module")
def recipes(installed, tmp_path_factory):
    """The recipes, copied by the command."""
    folder = tmp_path_factory.mktemp("user") / "recipes"
    output(installed / "sb-hyperbolic", "recipes", folder)
    return folder


def test_wheel_has_every_file_of_the_package(wheel, root):
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name for name in archive.namelist() if ".dist-info/" not in name
        }
    expected = files_of(root)
    assert {
        "speechbrain_hyperbolic/py.typed",
        "speechbrain_hyperbolic/analysis/page.html",
        "speechbrain_hyperbolic/recipes/VoxCeleb/hparams/ham_ecapa.yaml",
    } <= expected
    assert packed == expected


def test_every_module_imports_from_the_wheel(installed, root, tmp_path):
    where = "import speechbrain_hyperbolic; print(speechbrain_hyperbolic)"
    python = installed / "python"
    assert str(installed.parent) in output(python, "-c", where, cwd=tmp_path)
    imported = output(python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    modules = {
        file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for file in files_of(root)
        if file.endswith(".py") and "/recipes/" not in file
    }
    assert set(imported) == modules - {"speechbrain_hyperbolic"}


def test_requirements_are_met_and_agree(installed, tmp_path):
    check = run(installed / "python", "-m", "pip", "check", cwd=tmp_path)
    assert check.returncode == 0, check.stdout


def test_command_has_help(installed, tmp_path):
    shown = output(installed / "sb-hyperbolic", "--help", cwd=tmp_path)
    assert "recipes" in shown


def test_recipes_are_copied_with_their_hparams(recipes, root):
    copied = recipes / "VoxCeleb" / "hparams"
    assert not copied.is_symlink()
    for path in (root / "hparams").iterdir():
        assert (copied / path.name).read_bytes() == path.read_bytes()


def test_recipes_do_not_replace_a_folder(installed, recipes):
    kept = recipes / "VoxCeleb" / "hparams" / "ham_ecapa.yaml"
    mine = kept.read_text() + "# mine\n"
    kept.write_text(mine)
    refused = run(installed / "sb-hyperbolic", "recipes", recipes)
    assert refused.returncode == 2
    assert str(recipes) in refused.stderr
    assert kept.read_text() == mine


def test_copied_hparams_load(installed, recipes):
    load = (
        "from speechbrain_hyperbolic.hparams import load_hparams; "
        "hparams = load_hparams('hparams/ham_smooth_ecapa.yaml', "
        "'{data_folder: /none, channels: 8, out_n_neurons: 3}'); "
        "print(type(hparams['classifier']).__module__)"
    )
    printed = output(installed / "python", "-c", load, cwd=recipes / "VoxCeleb")
    assert printed.startswith("speechbrain_hyperbolic.lobes")


def test_copied_scripts_run(installed, recipes):
    python = installed / "python"
    own = run(python, "run.py", "--help", cwd=recipes / "OwnCorpus")
    assert own.returncode == 0 and "--data_folder" in own.stdout
    train = run(
        *(python, "train_speaker_embeddings.py", "hparams/ham_ecapa.yaml"),
        cwd=recipes / "VoxCeleb",
    )
    assert train.returncode == 2
    assert "pass --data_folder" in train.stderr


@pytest.mark.parametrize("name", ["ci.txt", "minimum.txt"])
def test_lists_have_what_setup_names(requirements, root, name):
    pinned = pins(root / "requirements" / name)
    for requirement in requirements:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version and version in requirement.specifier, (
            f"{name} has {version} for {requirement}: run make lock"
        )


def test_page_has_the_versions_of_the_lists(requirements, root):
    python = {"python_version": "3.11", "python_full_version": "3.11.9"}
    lists = [
        pins(root / "requirements" / name, **python)
        for name in ("minimum.txt", "ci.txt")
    ]
    page = (root / "docs" / "versions.md").read_text()
    rows = re.findall(r"^\| ([\w-]+) \| (\d\S*) \| (\d\S*) \|$", page, re.M)
    named = {
        canonicalize_name(requirement.name)
        for requirement in requirements
        if requirement.marker is None
    }
    assert {name for name, _, _ in rows} == named
    for name, *versions in rows:
        assert versions == [pinned[name] for pinned in lists]
