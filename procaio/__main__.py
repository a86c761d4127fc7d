"""Let `python -m procaio` be the command `procaio`."""

from __future__ import annotations

import sys

from procaio._cli import main

sys.exit(main())
