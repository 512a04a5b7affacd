"""Is it on disk?"""
