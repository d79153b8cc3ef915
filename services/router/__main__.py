"""Run the router: `python -m services.router`; with `--check`, read the files that it would, and end."""

from __future__ import annotations

from services.router.process import main, run

if __name__ == "__main__":
    run(main)
