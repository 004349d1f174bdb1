"""What people see: pages, their style and their words."""
