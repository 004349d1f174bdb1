"""What a client reads: answers as streams of server-sent events, and their replay."""
