"""Files encrypted by age, ansible-vault or gpg, and the keys and passwords that open them.

Plaintext stays in memory. pyrage and cryptography are imported when a file is opened.
"""
