"""Names of sounds: which there are, how people ask for them, and hints for those that are not known."""
