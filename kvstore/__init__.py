"""What do the bytes mean, and who asked?"""
