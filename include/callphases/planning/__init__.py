"""What an archive will cost before it is paid for, and how long it takes."""
