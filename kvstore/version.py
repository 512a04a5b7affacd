"""Which version is this? Of the program, and of the etcd API it speaks."""

from typing import Final

KVSTORE_VERSION: Final = "0.1.0"
VERSION: Final = "3.7.1"
"""Told to clients, strictly numeric.

It is the API they may rely on (etcd's), and clients compare it.
"""
CLUSTER_VERSION: Final = "3.7.0"
