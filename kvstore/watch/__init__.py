"""Who wants to know of which change, and how far have they read? Watchers as cursors on the log."""
