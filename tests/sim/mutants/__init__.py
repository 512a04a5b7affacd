"""Does each checker bite? Bugs that can be planted in the product, and must be found.

``planting.py`` says what a mutant is, ``catalog.py`` lists them, the other modules hold them by
room. Every one passes all the unit tests: real bugs do, too.
"""
