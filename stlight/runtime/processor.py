"""Say which processor this is."""

import platform
import re
import sys
from functools import cache
from pathlib import Path


@cache
def processor() -> str:
    """Describe the processor: its name and, on Linux, the instructions that it has, as in /proc/cpuinfo."""
    if sys.platform == "linux":
        found = re.findall(
            "^(?:flags|Features|model name).*",
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"),
            re.MULTILINE,
        )
        return "\n".join(dict.fromkeys(found))
    return platform.processor()
