"""What an installation puts into site-packages."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from programs import run_python

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built from the sdist of a copy of the tree."""
    tmp = tmp_path_factory.mktemp("packaging")
    source = tmp / "source"
    source.mkdir()
    names = ["pyproject.toml", "README.md", "LICENSE", "procaio", "shm", "workers"]
    subprocess.run(
        [
            "tar",
            "-C",
            ROOT,
            "--exclude=*.so",
            "--exclude=__pycache__",
            "-cf",
            tmp / "tree.tar",
            *names,
        ],
        check=True,
    )
    subprocess.run(["tar", "-C", source, "-xf", tmp / "tree.tar"], check=True)
    make = "from setuptools import build_meta; import sys; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", make, tmp / "sdist"], cwd=source, check=True)
    [sdist] = (tmp / "sdist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/shm/abi.h") for name in archive.getnames())
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "-w", tmp / "wheel", sdist], check=True
    )
    [made] = (tmp / "wheel").glob("*.whl")
    return made


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_wheel_from_the_sdist_holds_nothing_but_procaio(wheel: Path) -> None:
    """Workers and shm are everybody's names: they are installed below procaio."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"procaio"}
    assert {"procaio/shm/__init__.py", "procaio/workers/__init__.py", "procaio/py.typed"} <= set(
        names
    )
    assert any(name.startswith("procaio/_core.") and name.endswith(".so") for name in names)
    assert not any(name.endswith((".c", ".h")) for name in names)


def test_the_installation_adds_no_top_level_names_but_its_own(tmp_path: Path) -> None:
    """Also an editable one."""
    assert metadata.distribution("procaio").read_text("top_level.txt") == "procaio\n"
    look = "from importlib.util import find_spec; print([find_spec(n) for n in ('shm', 'workers')])"
    assert run_python(look, cwd=tmp_path) == "[None, None]\n"


def test_the_core_needs_only_posix_ipc_and_setproctitle() -> None:
    """Everything else is an optional extra."""
    requires = metadata.requires("procaio") or []
    core = sorted(line for line in requires if "extra ==" not in line)
    assert [line.split(">")[0].replace("-", "_") for line in core] == ["posix_ipc", "setproctitle"]
