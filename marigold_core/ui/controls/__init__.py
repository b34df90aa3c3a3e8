"""What a visitor sets: photo, settings, examples, links, replays."""
