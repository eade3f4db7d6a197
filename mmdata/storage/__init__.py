"""What is on disk: files, receipts, shards, features. The only package that knows a path."""
