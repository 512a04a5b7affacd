"""What does one type at a terminal? Commands that serve, and commands that ask."""
