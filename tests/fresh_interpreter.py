"""What a fresh interpreter has after some imports."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def evaluate(script: str, value: str) -> Any:
    """What `value` is in a fresh interpreter after `script`; both may use sys."""
    program = f"import json, sys\n{script}\nprint(json.dumps({value}))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
