"""The commands a person types; each module is one, and `main` is the table of them."""
