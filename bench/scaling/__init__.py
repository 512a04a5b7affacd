"""What would more cores bring to one node? A prototype of front workers, and a model, to measure.

None of it is part of the product: a node serves its clients with one process.
"""
