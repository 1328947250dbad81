"""Users files of other systems: one small file a system, rows in, rows of a users file out."""
