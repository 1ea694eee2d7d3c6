# bench/figures/hivemind_moe.py: a remote MoE layer, 8 experts, k = 2, 64 rows, against
# hivemind's RemoteMixtureOfExperts.
# needs: remote_layer
import sys

import hivemind_peer

sys.exit(hivemind_peer.figure("hivemind_moe", "moe", 64, [64, 2, 8], 20))
