"""The insides of the commands `separate` and `separate-batch`."""
