"""Training: objectives, losses, callbacks and the command `separation-train`."""

from separation.compat import make_importable

make_importable()  # before Lightning is imported; it fails beside a torchvision that cannot be loaded
