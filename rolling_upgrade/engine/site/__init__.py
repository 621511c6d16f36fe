"""The Nginx site of one application as data: a deploy requests a site, root sets rules, and both render to one file.

The workstation and the root-owned program on the host run this same code. So a plan shows the exact text that the host
will install, and the host accepts no Nginx text, path or program from the deploy user. Standard library and Jinja2 only.
"""
