"""A bounded part of `kill.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "kill.py"


@pytest.mark.slow
def test_a_killed_command_leaves_the_old_file_or_the_new_one() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "4", "--only", "decompose"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills" in done.stdout
