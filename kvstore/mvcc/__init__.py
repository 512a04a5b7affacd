"""What was, and what is, the value of a key?

The revision log keeps every version in revision order, the key index finds a key's versions, the
store reads and writes through both, and a transaction is several reads and writes at one
revision.
"""
