"""What memory a process has that it would have to give back."""

from __future__ import annotations

import re
from pathlib import Path


def own_mb(pid: int) -> float:
    """Return a process's memory in MiB but for the pages of files, which the system may take and read again."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    kilobytes = dict(re.findall(r"^(VmRSS|RssFile):\s+(\d+) kB$", status, re.MULTILINE))
    return (int(kilobytes["VmRSS"]) - int(kilobytes["RssFile"])) / 1024
