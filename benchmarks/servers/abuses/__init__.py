"""Abuses of a server: each a class that does one thing to it again and again, at a stated rate."""

import sys
from pathlib import Path
from typing import Final

# The client that breaks the rules of HTTP/2 belongs to the tests.
_SUPPORT: Final = Path(__file__).parents[3] / "tests" / "support"
sys.path.append(str(_SUPPORT))
