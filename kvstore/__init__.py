"""What do the bytes mean, and who asked? The store, its API and its server, above raft and wal."""
