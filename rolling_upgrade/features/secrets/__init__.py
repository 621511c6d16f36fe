"""Encrypted env files: encrypt, decrypt, edit, rotate, recipients, check."""
