"""Simulate quotas with 100 routers in 10 regions: `make simulate` (two minutes), `ARGS=--calibrate` on the real ledger.

The code of routers' quota clients, of auth's replicas and of the ledger's rules is the product's own; time, the network
and PostgreSQL are SimPy's. The same `--seed` gives the same report. It ends with 1 where a law of quotas is broken.
"""

from __future__ import annotations

import argparse
import time

from bench.simulation.calibration import compared
from bench.simulation.scenarios import SCENARIOS, head, row
from bench.simulation.world import simulate
from services.common import logs


def main() -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calibrate", action="store_true", help="compare with real auths and a real PostgreSQL")
    given = parser.parse_args()
    logs.configure("simulation", "critical")
    if given.calibrate:
        print(compared(given.seed))
        return 0
    began = time.process_time()
    print(head(), flush=True)
    hold = True
    for plan in SCENARIOS:
        report = simulate(plan, given.seed)
        hold = hold and report.law_holds
        print(row(report), flush=True)
    print(f"\nseed {given.seed}; {time.process_time() - began:.0f} s of a processor")
    return 0 if hold else 1


if __name__ == "__main__":
    raise SystemExit(main())
