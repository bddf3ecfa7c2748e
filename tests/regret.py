"""What a mixture of experts is held against."""

import numpy as np


def best_sequence(losses, changes):
    """The least sum of losses (rows, experts) of a sequence of experts with at most so many changes; by enumeration."""
    kept = np.full((changes + 1, losses.shape[1]), np.inf)
    kept[0] = 0
    for row in losses:
        came = np.vstack([np.full(losses.shape[1], np.inf), np.broadcast_to(kept[:-1].min(1)[:, None], kept[1:].shape)])
        kept = np.minimum(kept, came) + row
    return kept.min()
