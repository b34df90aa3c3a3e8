"""One model, many callers: jobs in turn, kept results, runtime estimates."""
