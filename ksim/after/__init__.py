"""What can be done with recordings afterwards: judge them together, compare them, lift them."""
