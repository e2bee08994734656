"""Exceptions that several parts of the package share. Their text is one sentence for the user."""


class ModelError(RuntimeError):
    """An unknown model name, or model files that are missing, damaged or not usable."""


class AudioError(Exception):
    """Audio that cannot be read or written; the text names the file."""


class DataError(ValueError):
    """A dataset's files are missing or not valid; the text names the file."""
