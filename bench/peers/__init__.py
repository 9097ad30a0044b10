"""What penstock is measured against. Each is a process of its own, and knows nothing of penstock."""
