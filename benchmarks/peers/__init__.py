"""The same work through the public classes of other libraries, for `make bench-peers`."""
