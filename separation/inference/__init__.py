"""What `Separator` is made of: streams, levels, results, sentences, directions."""
