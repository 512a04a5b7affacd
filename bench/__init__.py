"""How fast is it, side by side with etcd? One load, in turns, on the same machine and disk."""
