"""Roundings: which of a grid's values each weight takes after calibration, where that is not the nearest."""
