"""Results on disk: one writer a format, the manifest, archives, running a manifest again."""

MANIFEST = "manifest.json"  # beside the other files of every result
