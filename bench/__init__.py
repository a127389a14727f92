"""Measurements, each against something run beside it: `make bench`."""
