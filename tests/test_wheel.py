"""What a user of pip gets: the wheel, in a virtual environment of its own.

The wheel is built from the sdist, as pip does. Its dependencies come from the
environment that runs the tests, so that nothing is downloaded.
"""

import os
import pathlib
import subprocess
import sys
import sysconfig
import zipfile

import pytest


def run(*command, code=0, **options):
    """A process that ends with this code, without the repository's path."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [str(part) for part in command]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, **options
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def files_of(folder, name):
    """The files of a folder of the repository, as a wheel names them."""
    return {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", "results"} & {*path.parts}
    }


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(
        *(sys.executable, "setup.py", "-q", "egg_info", "--egg-base", folder),
        *("sdist", "--dist-dir", folder),
        cwd=root,
    )
    (sdist,) = folder.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps")
    run(*pip, "--no-build-isolation", sdist, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the commands of an environment that has the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    commands = folder / pathlib.Path(sys.executable).parent.name
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = run(commands / "python", "-c", ask).stdout
    site = pathlib.Path(found.strip())
    # A path alone: the .pth files of the running environment are not read, so
    # its editable installation of the repository is out of reach.
    heavy = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (site / "dependencies.pth").write_text("\n".join(dict.fromkeys(heavy)))
    pip = (commands / "python", "-m", "pip")
    install = ("install", "--no-index", "--no-deps", "--ignore-installed")
    run(*pip, *install, wheel, cwd=folder)
    return commands


def test_the_wheel_has_every_file_of_the_package(wheel, root):
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name for name in archive.namelist() if ".dist-info/" not in name
        }
    package = "speechbrain_hyperbolic"
    expected = files_of(root / package, package)
    expected |= files_of(root / "recipes", f"{package}/recipes")
    expected |= files_of(
        root / "hparams", f"{package}/recipes/VoxCeleb/hparams"
    )
    assert packed == expected


def test_the_copied_recipes_run(installed, tmp_path, root):
    """With their hparams; a second copy would replace what has changed."""
    command, python = installed / "sb-hyperbolic", installed / "python"
    recipes = tmp_path / "recipes"
    run(command, "recipes", recipes)
    for path in (root / "hparams").iterdir():
        copy = recipes / "VoxCeleb" / "hparams" / path.name
        assert copy.read_bytes() == path.read_bytes()
    assert str(recipes) in run(command, "recipes", recipes, code=2).stderr
    own = run(python, "run.py", "--help", cwd=recipes / "OwnCorpus")
    assert "--data_folder" in own.stdout
    for script, name in (
        ("train_speaker_embeddings.py", "ham_ecapa"),
        ("speaker_verification.py", "verification"),
    ):
        arguments = (python, script, f"hparams/{name}.yaml")
        done = run(*arguments, code=2, cwd=recipes / "VoxCeleb")
        assert "pass --data_folder" in done.stderr
