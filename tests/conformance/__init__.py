"""Does a caller notice whether etcd or this store answers? The same calls go to both."""
