"""Batch jobs for a Ray cluster, or for one machine: a file a job."""
