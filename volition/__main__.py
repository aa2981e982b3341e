"""`python -m volition` is the command `volition`."""

import sys

from volition.cli import main

sys.exit(main())
