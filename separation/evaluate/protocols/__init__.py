"""Evaluation protocols, one family a file; `base.find_protocol` finds them by name."""
