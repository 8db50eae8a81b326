"""Run `python -m stlight`: one verb per process, which starts and ends fast because a scale has many short runs."""

import os
import signal

from stlight.runtime import start_up

# Loading torch takes two seconds. A run that is interrupted before it has a handler of its own ends as interrupted (75).
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda *_: os._exit(75))

start_up.postpone_garbage_collection()

from stlight.cli import main  # noqa: E402

start_up.exit_at_once(main())
