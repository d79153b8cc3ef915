"""A worker of pytest-xdist, forked from a process that has imported what tests import for five seconds of CPU.

`tests.suite.launch` has it forked. Modules whose asserts pytest rewrites are not among the imports: test files,
conftest.py, and those of plugins, such as hypothesis.
"""

from __future__ import annotations

import os
import sys

PRELOADED = (
    "anyio",
    "diffusers.utils",
    "google.genai.types",
    "inference.embedding.engine",
    "inference.image.engine",
    "inference.text.engine",
    "moto",
    "openai.types.chat",
    "replicate",
    "services.auth.replica",
    "services.router.process",
    "services.tasks.__main__",
    "torch",
    "transformers",
    "werkzeug",
)

if __name__ == "__main__":
    _bootstrap, _umask = sys.argv[1:]
    del sys.argv[1:]
    os.umask(int(_umask, 8))
    # A plugin of pytest too: it warns of plugins that were imported before, unless they say this.
    sys.modules["anyio"].__doc__ = "PYTEST_DONT_REWRITE"
    exec(_bootstrap)  # execnet's own: it reads the rest from stdin
