"""Preparers: from a published dataset to a manifest, one file a dataset.

A new dataset is a new file here with a function under `@preparer(...)`, and a test; `prepare.preparers` finds it.
"""
