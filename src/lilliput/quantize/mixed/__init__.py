"""Mixed precision: a width of its own for every layer, or channel, under a budget."""
