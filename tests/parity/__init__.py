"""Comparisons with outputs of the published code; each needs the fixtures that SEPARATION_PARITY points to."""
