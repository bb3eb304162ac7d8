"""An agent that is started by way of another command: in a namespace, with a limit."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field

from tests.agent_process import BIN, Agent


@dataclass
class Wrapped(Agent):
    """`wrapper` ends by executing what follows it, so that the pid is the agent's."""

    wrapper: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start the wrapper, which becomes the agent."""
        command = [*self.wrapper, str(BIN / "miglet"), "--config", str(self.config)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
