"""Run `python -m stlight`: one verb per process, which starts and ends fast because a scale has many short runs."""

import gc
import os
import signal
import sys

from stlight.runtime.process import INTERRUPTED_STATUS, STOP_SIGNALS

# Loading torch takes two seconds. A run that is interrupted before it handles signals itself must end as interrupted too.
for number in STOP_SIGNALS:
    signal.signal(number, lambda *_: os._exit(INTERRUPTED_STATUS))

# Modules stay alive, so nothing is collected during imports: 0.2 s of a run of 1.5 s. Verbs that load torch enable it again.
gc.disable()

from stlight.cli import main  # noqa: E402

sys.exit(main())
