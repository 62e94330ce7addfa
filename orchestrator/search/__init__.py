"""What to run next: ask/tell policies, pure, one file each."""
