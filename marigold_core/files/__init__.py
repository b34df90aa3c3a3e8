"""Results on disk: one writer a format, the manifest, archives, running a manifest again."""
