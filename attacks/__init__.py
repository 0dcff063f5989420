"""Membership-inference attacks, one file each; the file name is the attack's name."""
