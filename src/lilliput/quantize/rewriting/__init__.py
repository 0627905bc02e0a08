"""Rewrites: changes of the float network that keep its function and make it easier to quantize."""
