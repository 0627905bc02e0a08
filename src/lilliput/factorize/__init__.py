"""Low-rank and transform coding: change of basis before rounding, or fewer ranks in its place."""
