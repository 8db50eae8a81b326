"""`python -m stlight`."""

import os
import sys

from stlight.cli import main

status = main()
sys.stdout.flush()
sys.stderr.flush()
# Every file is closed by now; taking torch's modules down one by one would add half a second to each of many short runs.
os._exit(status)
