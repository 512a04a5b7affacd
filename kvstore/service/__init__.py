"""What does each call of the API do? One method a call: check, propose or read, fill in the header.

No face, no transport.
"""
