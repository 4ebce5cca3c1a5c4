"""Settings of all tests on clusters."""

import os

# Before Ray is imported, which reads it then: nothing is reported to Ray's makers.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Clusters of tests listen on the loopback only, and have no tokens.
os.environ["RAY_AUTH_MODE"] = "disabled"
