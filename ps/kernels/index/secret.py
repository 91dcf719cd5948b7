"""A number that nobody outside of this process knows.

Mixed into the hashes of tables whose probes grow long where ids collide: `mix64` is no secret and has an inverse, so
ids could be chosen to meet in one place, and a million of them would keep a core busy for an hour. Where an id lies in
such a table decides nothing that anybody can see, so no result depends on the secret.
"""

from __future__ import annotations

import numpy as np

from ps.runtime.entropy import SYSTEM_ENTROPY

SECRET = np.uint64(SYSTEM_ENTROPY.getrandbits(64))
"""For arguments only: a kernel that names it would keep it with its compiled code."""
