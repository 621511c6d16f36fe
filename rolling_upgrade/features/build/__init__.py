"""Build the images of the services on this workstation, and push them."""
