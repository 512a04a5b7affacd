"""How do bytes get from one member to another? HTTP connections that are upgraded to frames.

One a pair of members.
"""
