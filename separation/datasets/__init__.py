"""From a dataset as it is published to a manifest: one small file each.

A new dataset is a new file here with a `PREPARER` in it, and a test. `registry.py` finds it by itself.
"""
