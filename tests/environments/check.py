"""Installs smoothnb from its wheel with given versions of other packages, and runs the tests and notebooks there.

    python3.13 tests/environments/check.py colab
    python3.11 tests/environments/check.py oldest
    python3.13 tests/environments/check.py newest --no-notebooks

Each NAME.txt next to this file lists versions; "oldest" are the lower bounds in pyproject.toml themselves. They are
installed first. The wheel comes after, and may add packages but replace none: in Colab, a package that is replaced
means a runtime that has to be restarted. Tests and notebooks then run in a folder without the sources.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def versions(name: str) -> list[str]:
    """What to install before the wheel."""
    if name == "oldest":
        bounds = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        return [re.sub(r">=", "==", bound) for bound in bounds]
    lines = (HERE / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def installed(pip: list[str]) -> dict[str, str]:
    """Versions by package."""
    lines = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True, check=True).stdout
    return dict(line.split("==") for line in lines.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="oldest, or a file next to this one, without .txt")
    parser.add_argument("--folder", type=Path, help="for the environment and the copies; kept. By default a new one")
    parser.add_argument("--tests", default="tests", help="which tests to run")
    parser.add_argument("--no-notebooks", action="store_true")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="smoothnb-"))).resolve()
    bin_ = folder / "venv" / "bin"
    pip = [str(bin_ / "python"), "-m", "pip", "--disable-pip-version-check"]

    def run(*words: object, cwd: Path = folder) -> int:
        print("+", *words, flush=True)
        # As many workers as cores, with one thread each.
        return subprocess.run(
            [str(word) for word in words], cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}
        ).returncode

    def must(*words: object) -> None:
        if run(*words):
            raise SystemExit(f"failed: {' '.join(map(str, words))}")

    if not bin_.is_dir():
        must(sys.executable, "-m", "venv", folder / "venv")
        if wanted := versions(options.name):
            must(*pip, "install", "--quiet", *wanted)
    # In a folder of before: pip would keep an older wheel of the same version.
    must(*pip, "uninstall", "--quiet", "--yes", "smoothnb")
    before = installed(pip)
    must(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "wheel", ROOT)
    (wheel,) = (folder / "wheel").glob("*.whl")
    must(*pip, "install", "--quiet", f"{wheel}[test]")
    after = installed(pip)
    replaced = {name: (old, after.get(name)) for name, old in before.items() if after.get(name) != old}
    print("replaced by the install:", replaced or "nothing")

    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(
        ROOT, copy, ignore=lambda at, names: [
            n for n in names if n.startswith(".") or (Path(at) == ROOT and n in ("smoothnb", "data", "runs", "build"))
        ],
    )  # fmt: skip
    shown = ("torch", "diffusers", "transformers", "peft", "ipywidgets", "numpy")
    print("tested:", {name: after[name] for name in shown}, "with Python", sys.version.split()[0], flush=True)
    # Other versions warn of other things, in each other too: that is no error here.
    workers = [bin_ / "pytest", "-q", "-n", "logical", "--dist", "loadscope", "-W", "default"]
    failed = bool(replaced)
    failed |= run(*workers, options.tests, cwd=copy) != 0
    if not options.no_notebooks:
        notebooks = sorted((copy / "notebooks").glob("*.ipynb"))
        nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-sanitize-with", "tests/sanitize.cfg"]
        failed |= run(*workers, *nbval, "--nbval-cell-timeout", "600", *notebooks, cwd=copy) != 0
    raise SystemExit("something failed, see above" if failed else None)


if __name__ == "__main__":
    main()
