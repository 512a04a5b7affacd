"""How does etcd's API sound over gRPC? Frames, calls, and messages of Protocol Buffers."""
