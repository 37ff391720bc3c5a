"""Tests leave the user's state folder alone, in this process and in those that they start."""

import subprocess
import sys
from pathlib import Path

import pytest

from deepseek.server.batches.desk import default_folder

ASK = "from deepseek.server.batches.desk import default_folder; print(default_folder())"


def test_state_goes_to_a_folder_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    mine = tmp_path_factory.getbasetemp()
    assert default_folder().is_relative_to(mine)
    told = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(told).is_relative_to(mine)
