"""One model for many callers: one job at a time, kept results, runtime estimates."""
