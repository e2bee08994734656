"""What accompanies a training: checkpoints, speed, examples to hear and see."""
