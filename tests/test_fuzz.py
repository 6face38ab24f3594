"""A short run of fuzz.py, in a process of its own: there the tests' type checker stays out of the way, as for users."""

import subprocess
import sys
from pathlib import Path

import fuzz

import smoothnb


def test_every_public_name_is_called():
    assert sorted(fuzz.TABLE) == sorted(smoothnb.__all__)


def test_no_argument_leads_to_an_error_of_others_or_a_wrong_result():
    program = Path(fuzz.__file__)
    run = subprocess.run(
        [sys.executable, program, "--seconds", "15", "--seed", "0"], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0 and "0 faults" in run.stdout, run.stdout + run.stderr
