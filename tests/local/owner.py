"""An owner that a test kills: starts one process under a supervisor, says its id, waits."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from deploy.local.supervisor import Spec, Supervisor

supervisor = Supervisor(Path.cwd(), on_death=lambda _name, _code: None)
supervisor.start(Spec(name="one", module="tests.local.sleeper", environment=dict(os.environ), log=Path(sys.argv[1])))
print(supervisor.pid("one"), flush=True)
threading.Event().wait()
