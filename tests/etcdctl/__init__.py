"""Does etcdctl, unmodified, find in us what it finds in etcd? The same script, side by side."""
