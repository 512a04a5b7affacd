"""Does the disk keep what was promised?"""
