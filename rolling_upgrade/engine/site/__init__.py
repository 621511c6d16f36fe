"""The Nginx site of one application, as data: the request of a deploy, the rules of root, and the text rendered from both.

The workstation and the root-owned program on the host run this same code. So a plan shows the exact text that the host
will install, and the host accepts no Nginx text, path or program from the deploy user. Standard library and Jinja2 only.
"""
