"""The plug-in: everything that is semi-supervised, and the command line."""
