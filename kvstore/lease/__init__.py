"""Which keys live for how long? Leases: a replicated part, and a leader's clock beside it."""
