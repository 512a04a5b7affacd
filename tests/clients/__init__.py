"""Do clients that others wrote, as they come, find in us what they look for?"""
