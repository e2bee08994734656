"""What training minimises, one concept a file."""

from separation.losses.bands import MaskError as MaskError
from separation.losses.levels import absent_loss as absent_loss
from separation.losses.levels import snr_loss as snr_loss
