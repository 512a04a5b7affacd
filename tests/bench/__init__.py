"""Do the figures of the comparison say what was measured?"""
