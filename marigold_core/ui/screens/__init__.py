"""What a visitor sees of a result: one file a screen."""
