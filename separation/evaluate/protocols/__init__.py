"""Evaluation protocols by name: `registry.find`. One family of protocols is one file, found by itself."""
