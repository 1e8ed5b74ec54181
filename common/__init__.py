"""What both projects need. Imports neither of them."""
