"""Where models come from: downloads, configurations, tensors and earlier class paths."""
