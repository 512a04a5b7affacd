"""How does etcd's v3 API read as JSON over HTTP? Proto3's mapping, as its gateway has it."""
