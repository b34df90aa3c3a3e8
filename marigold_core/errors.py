"""Every error a user can cause, each a sentence that says what was received and what to do.

MarigoldError
├── ImageError        the photo cannot be used
├── VideoError        the video cannot be used
├── SettingsError     a setting is out of range or of the wrong type
├── CheckpointError   the checkpoint is missing, damaged or of another kind
├── CalibrationError  the hints do not determine metres
└── ExportError       a file could not be written

Surfaces translate these in one place each; anything else is a bug and is shown with its trace.
"""


class MarigoldError(Exception):
    """Base of all errors that a user can correct; ``str(error)`` is the sentence to show."""


class ImageError(MarigoldError):
    """The photo cannot be used: damaged, unsupported, too large, too narrow."""


class VideoError(MarigoldError):
    """The video cannot be used: damaged, without a moving picture, too large."""


class SettingsError(MarigoldError):
    """A setting is out of range, of the wrong type or unknown."""


class CheckpointError(MarigoldError):
    """The checkpoint is missing, damaged, unreachable or of a kind this library does not run."""


class CalibrationError(MarigoldError):
    """The given hints do not determine the unknown scale and shift."""


class ExportError(MarigoldError):
    """A file could not be written: disk full, folder read-only, nothing to write."""


class HostError(MarigoldError):
    """The host that lends its GPU refuses or loses a run: none is free, the visitor's time is used up."""
