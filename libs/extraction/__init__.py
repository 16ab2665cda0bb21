"""From videos to features: decoding, clips, networks, files. Needs the extra `video`."""
