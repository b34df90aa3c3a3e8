"""Photos in, pictures out: decoding, colour maps, differences of maps."""
