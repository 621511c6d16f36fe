"""Files encrypted at rest: age, ansible-vault and gpg, told apart by their first bytes; and the keys that open them.

It owns the forms and knows no setting. Plaintext lives in memory alone: it writes no file and prints no secret.
pyrage and cryptography are imported when a file is opened.
"""
