"""Evaluation on fixed mixtures: `python -m separation.evaluate --protocol NAME --root RECORDINGS`."""
