"""`python -m stlight`: one verb in a process of its own, started and ended quickly, for there are many short runs."""

import gc
import os
import signal
import sys

# The status of a run that was asked to stop; from the first moment, for loading torch takes two seconds.
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda *_: os._exit(75))

# What is imported stays: looking through it for garbage again and again would take a tenth of a run's start.
gc.disable()

from stlight.cli import main  # noqa: E402

status = main()
sys.stdout.flush()
sys.stderr.flush()
# Every file is closed by now; taking torch's modules down one by one would take half a second more.
os._exit(status)
