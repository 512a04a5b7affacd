"""Which message has which fields, by which numbers? What `make proto` made of the .proto files."""
