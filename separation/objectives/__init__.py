"""How a separator is trained, one objective a file; all are Lightning modules over the same models and encoders."""

from separation.compat import make_importable

make_importable()  # before Lightning, which a torchvision that does not load takes down with it
