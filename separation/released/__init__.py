"""Published separation systems: their checkpoints and query encoders."""
