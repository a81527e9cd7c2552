"""Judges that are not the product's code: brute, slow, and exact."""
