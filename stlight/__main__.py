"""Run `python -m stlight`: one verb per process, which starts and ends fast because a scale has many short runs."""

import os
import signal

from stlight.runtime import start_up
from stlight.runtime.signals import INTERRUPTED_STATUS, STOP_SIGNALS

# Loading torch takes two seconds. A run that is interrupted before it handles signals itself must end as interrupted too.
for number in STOP_SIGNALS:
    signal.signal(number, lambda *_: os._exit(INTERRUPTED_STATUS))

start_up.postpone_garbage_collection()

from stlight.cli import main  # noqa: E402

start_up.exit_at_once(main())
