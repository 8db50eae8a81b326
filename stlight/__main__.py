"""Run `python -m stlight`: one verb per process, which starts and ends fast because a scale has many short runs."""

import gc
import os
import signal
import sys

# Loading torch takes two seconds. A run that is interrupted before it has a handler of its own ends as interrupted (75).
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda *_: os._exit(75))

# Imported modules stay alive. Without collection passes over them a run starts a tenth faster.
gc.disable()

from stlight.cli import main  # noqa: E402

status = main()
sys.stdout.flush()
sys.stderr.flush()
# All files are closed. Taking torch's modules down one by one would take half a second.
os._exit(status)
