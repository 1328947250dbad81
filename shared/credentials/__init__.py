"""What proves who somebody is: passwords, session tokens, ID tokens, and their keys."""
