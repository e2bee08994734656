"""What accompanies a training: checkpoints, speed, examples to hear and see."""

from separation.compat import make_importable

make_importable()  # before Lightning, which a torchvision that does not load takes down with it
