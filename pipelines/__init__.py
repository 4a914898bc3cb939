"""One file a command."""

import os

# GNU OpenMP's threads spin while they wait for one another. Where another process wants a core too,
# a training step then takes up to ten times as long; spinning for some 20 microseconds at most
# costs nothing measurable on an idle machine. It must be said before torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
