# bench/figures/hivemind_batched.py: batches of 128 rows to one remote expert, against hivemind's RemoteExpert
# called on batches of 128 rows.
# needs: remote_layer
import sys

import hivemind_peer

sys.exit(hivemind_peer.figure("hivemind_batched", "batched", 128, [128, 1, 1], 2))
