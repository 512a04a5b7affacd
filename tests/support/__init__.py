"""Whole clusters in one process: a clock, a network and disks that a test holds in its hands."""
